"""Node packs that did not load, as ComfyUI's log tells of them, and the classes that they would have brought."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from comfy_worker.comfyui.node_packs import NodePacks
from comfy_worker.workflow.node_defs import MissingNodeReason


@pytest.fixture
def comfyui_dir(tmp_path: Path) -> Path:
    """A ComfyUI with two packs and a module of API nodes."""
    for name, source in {
        "comfy_api_nodes/nodes_kling.py": 'node_id="KlingVideo"',
        "custom_nodes/whole/nodes/more.py": 'NODE_CLASS_MAPPINGS = {"Whole": 1}',
        "custom_nodes/whole/requirements.txt": "pytest # here\nno-such-package\nghost; python_version<'3'\n-r x\n",
        "custom_nodes/single.py": "NODE_CLASS_MAPPINGS = {'Single': 1}",
        "custom_nodes/__pycache__/x.txt": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path


@pytest.fixture
def packs(comfyui_dir: Path) -> NodePacks:
    return NodePacks(comfyui_dir, (comfyui_dir / "nowhere",), api_nodes=False)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (
            [
                "ModuleNotFoundError: No module named 'foo'",
                "Cannot import {} module for custom nodes: No module named 'foo'",
            ],
            "ModuleNotFoundError: No module named 'foo'",
        ),
        (
            ["something else", "Cannot import {} module for custom nodes: division by zero"],
            "division by zero",
        ),
        (["pkg.OddError", "Cannot import {} module for custom nodes: "], "pkg.OddError"),
        (["Error while calling comfy_entrypoint in {}: no luck"], "no luck"),
        (["Failed to execute startup-script: {}/prestartup_script.py / no luck"], "no luck"),
    ],
)
def test_a_failed_pack_explains_its_classes(
    packs: NodePacks,
    comfyui_dir: Path,
    caplog: pytest.LogCaptureFixture,
    lines: list[str],
    why: str,
) -> None:
    pack = comfyui_dir / "custom_nodes" / "whole"
    with caplog.at_level(logging.ERROR, logger="comfy_worker"):
        for line in lines:
            packs.read_line(line.format(pack))
    assert [record.getMessage() for record in caplog.records] == [
        f"node pack whole failed to load: {why}"
    ]
    assert packs.explain("Whole") == MissingNodeReason(
        f"its node pack whole failed to load: {why}",
        "install no-such-package beside ComfyUI",
        "whole",
    )


def test_a_pack_without_its_class_is_named(packs: NodePacks) -> None:
    assert packs.explain("Single") == MissingNodeReason(
        "its node pack single did not bring it", "fix single on the endpoint", "single"
    )
    assert packs.explain("Sing") is None


def test_packages_that_a_pack_lacks_are_logged(
    packs: NodePacks, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="comfy_worker"):
        packs.report_missing()
    assert [record.getMessage() for record in caplog.records] == [
        "node pack whole needs Python packages that are not installed: no-such-package"
    ]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (
            ["Skip {} module for custom nodes due to the lack of NODE_CLASS_MAPPINGS (need one)."],
            "it was skipped because of the lack of NODE_CLASS_MAPPINGS (need one).",
        ),
        (
            ["comfy_entrypoint in {} did not return a list of nodes, skipping."],
            "its comfy_entrypoint did not return a list of nodes",
        ),
        (
            ["comfy_entrypoint in {} is not callable, skipping."],
            "its comfy_entrypoint is not callable",
        ),
        (["   0.1 seconds (IMPORT FAILED): {}"], "ComfyUI does not say why"),
    ],
)
def test_a_pack_without_nodes_is_a_warning(
    packs: NodePacks,
    comfyui_dir: Path,
    caplog: pytest.LogCaptureFixture,
    lines: list[str],
    why: str,
) -> None:
    pack = comfyui_dir / "custom_nodes" / "single.py"
    for line in lines:
        packs.read_line(line.format(pack))
    with caplog.at_level(logging.WARNING, logger="comfy_worker"):
        packs.report_missing()
    first = caplog.records[0]
    assert (first.levelname, first.getMessage()) == (
        "WARNING",
        f"node pack single brought no nodes: {why}",
    )
    assert f"node pack single failed to load: {why}" in str(packs.explain("Single"))


def test_paid_nodes_that_are_off_are_explained(packs: NodePacks, comfyui_dir: Path) -> None:
    absence = packs.explain("KlingVideo")
    assert absence is not None
    assert "paid service of comfy.org" in absence.why
    assert absence.would_do == "set API_NODES=true there"
    assert NodePacks(comfyui_dir, (), api_nodes=True).explain("KlingVideo") is None


def test_a_number_in_quotes_is_no_class(comfyui_dir: Path, packs: NodePacks) -> None:
    source = 'MODES = {"a": ("std", "5")}\nNODE_CLASS_MAPPINGS = {"OldKling": KlingNode}\n'
    for folder in ("comfy_api_nodes", "custom_nodes/whole"):
        (comfyui_dir / folder / "more.py").write_text(source)
    assert packs.explain("5") is None
    assert "paid service" in str(packs.explain("OldKling"))
    assert "paid service" not in str(packs.explain("std"))
