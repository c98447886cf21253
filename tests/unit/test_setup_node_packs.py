"""Which lines custom_nodes.txt may have, and what ComfyUI's log says of packs that it does not load."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.import_failures import ImportFailures
from comfy_setup import node_packs
from comfy_setup.child import ProgramFailed, Runner
from comfy_setup.node_packs import Pack, parse_packs
from tests.tools import require

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOG = """\
Traceback (most recent call last):
  File "/worker/custom_nodes/broken/__init__.py", line 1, in <module>
    import no_such_package
ModuleNotFoundError: No module named 'no_such_package'

Cannot import /worker/custom_nodes/broken module for custom nodes: No module named 'no_such_package'
Skip /worker/custom_nodes/empty module for custom nodes due to the lack of NODE_CLASS_MAPPINGS

Import times for custom nodes:
   0.0 seconds: /worker/custom_nodes/good
   0.0 seconds (IMPORT FAILED): /worker/custom_nodes/broken
   0.1 seconds (IMPORT FAILED): /worker/custom_nodes/empty
   0.1 seconds (IMPORT FAILED): /worker/custom_nodes/silent
"""


def test_packs_come_from_the_registry_or_from_git() -> None:
    text = f"# packs\n\ncomfyui-kjnodes@1.1.9  # curves\nhttps://user@example.org/o/My_Nodes.git@{COMMIT}\n"
    assert parse_packs(text) == [
        Pack("comfyui-kjnodes", "comfyui-kjnodes", "1.1.9"),
        Pack("My_Nodes", "https://user@example.org/o/My_Nodes.git", COMMIT),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "comfyui-kjnodes",  # no version
        "comfyui-kjnodes@latest",
        "two words@1.0.0",
        "../up@1.0.0",
        ".hidden@1.0.0",
        "https://example.org/o/nodes",
        "https://example.org/o/nodes@main",
        f"https://example.org/o/nodes@{COMMIT[:12]}",
        f"https://example.org/..@{COMMIT}",
    ],
)
def test_an_unpinned_lines_error_has_its_number(line: str) -> None:
    with pytest.raises(SetupError, match=r"custom_nodes\.txt, line 2: write `name@version`"):
        parse_packs(f"# packs\n{line}\n")


def test_two_packs_of_one_name_are_refused() -> None:
    with pytest.raises(SetupError, match="line 2: nodes is listed twice"):
        parse_packs(f"nodes@1.0.0\nhttps://example.org/o/nodes@{COMMIT}\n")


def test_the_shipped_list_names_no_pack() -> None:
    assert parse_packs(node_packs.LIST.read_text(encoding="utf-8")) == []


def test_packs_that_fail_to_load_are_explained() -> None:
    failures = ImportFailures()
    for line in LOG.splitlines():
        failures.read_line(line)
    failed = failures.failed()
    assert list(failed) == [
        Path(f"/worker/custom_nodes/{name}") for name in ("broken", "empty", "silent")
    ]
    assert failed[Path("/worker/custom_nodes/broken")].endswith("No module named 'no_such_package'")
    assert "lack of NODE_CLASS_MAPPINGS" in failed[Path("/worker/custom_nodes/empty")]
    assert failed[Path("/worker/custom_nodes/silent")] == "ComfyUI does not say why"


def test_comfyui_gets_the_packs_folder_once_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "NODE_PACKS", tmp_path / "custom_nodes")
    assert paths.custom_node_folders(tmp_path / "volume") == [paths.CUSTOM_NODES]
    paths.NODE_PACKS.mkdir()
    assert paths.custom_node_folders(tmp_path / "volume") == [paths.NODE_PACKS, paths.CUSTOM_NODES]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "Because you require numpy>=3 and numpy==1.26.4, your requirements are unsatisfiable.",
            ["one requires NumPy>=3  ; python_version>'3'", "and the worker needs NumPy 1.26.4"],
        ),
        (
            "Because you require foo-bar>=2 and foo-bar<2, your requirements are unsatisfiable.",
            ["one requires foo_bar>=2", "two requires foo.bar<2"],
        ),
    ],
)
def test_a_conflict_names_packs_and_requirements(
    output: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "NODE_PACKS", tmp_path)
    monkeypatch.setattr(node_packs.packages, "INSTALLED", tmp_path / "installed.txt")
    (tmp_path / "installed.txt").write_text("numpy==1.26.4\ntorch==2.10.0\n")
    for name, text in (
        ("one", "# big\nNumPy>=3  ; python_version>'3'\nfoo_bar>=2 # new\n-e .\n"),
        ("two", "foo.bar<2\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "requirements.txt").write_text(text)
    error = ProgramFailed("Installing failed.", output)
    message = str(node_packs._conflict([Pack("one", "one", "1"), Pack("two", "two", "1")], error))
    for word in words:
        assert word in message
    assert message.endswith("Installing failed.")
    assert node_packs._conflict(
        [Pack("two", "two", "1")], ProgramFailed("No network.", "no")
    ).args == ("No network.",)


@pytest.mark.parametrize(
    ("folder", "words"),
    [("gone", "no Git repository at that address; the build of an image"), ("empty", "failed: ")],
)
def test_a_failed_download_names_the_pack(
    folder: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("git")
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path / "empty"], check=True)
    pack = Pack(folder, f"file://{tmp_path}/{folder}", COMMIT)
    with (tmp_path / "lock").open("a+b") as lock:
        runner = Runner(lock, tmp_path / "log", dict(os.environ))
        with pytest.raises(SetupError, match=words) as caught:
            node_packs._fetch(Console(io.StringIO()), runner, pack)
    assert pack.line in str(caught.value)
    assert "--comfyui-source" not in str(caught.value)
