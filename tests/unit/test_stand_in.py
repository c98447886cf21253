"""Which checkpoint stands in where a template's own is not installed, and who is told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_worker.inputs.files import InputFiles
from comfy_worker.planning import planner as module
from comfy_worker.planning.planner import Plan, Planner
from comfy_worker.planning.templates import Params, Template
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.graph import Need
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import OBJECT_INFO, txt2img

OWN = "sd15.safetensors"
URL = "https://huggingface.co/owner/repo/resolve/main/sd15.safetensors"


@pytest.fixture(autouse=True)
def nobody_was_told() -> Iterator[None]:
    module._STAND_INS_TOLD.clear()
    yield
    module._STAND_INS_TOLD.clear()


def plan(tmp_path: Path, files: list[str], sd_model: str = "", **changes: Any) -> Plan:
    """A template's job on a worker that has these checkpoints."""
    info = copy.deepcopy(OBJECT_INFO)
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [files]
    installed = SimpleNamespace(
        defs=NodeDefs(info),
        model_path=lambda _folder, _name: None,
        explain=lambda _class_type: None,
        validate=lambda _workflow: None,
        searched=lambda folder: [f"/models/{folder}"],
        refresh=lambda: None,
    )
    params = Params(needs=(Need("checkpoints", OWN, URL),))
    return Planner(
        JobInput.read({"prompt": "x", **changes}),
        Template("mine", txt2img(), params),
        installed=installed,
        sd_model=sd_model,
        files=InputFiles(tmp_path, Settings().input_limits),
    ).plan()


def test_a_placeholder_does_not_count_beside_a_real_file(tmp_path: Path) -> None:
    for files in (
        ["placeholder.safetensors", "real.safetensors"],
        ["sub/placeholder-b.safetensors", "real.safetensors"],
    ):
        assert plan(tmp_path, files).parameters["checkpoint"] == "real.safetensors"


def test_a_placeholder_alone_stands_in(tmp_path: Path) -> None:
    assert plan(tmp_path, ["placeholder.safetensors"]).parameters["checkpoint"] == "placeholder.safetensors"


def test_the_stand_in_is_told_once(tmp_path: Path) -> None:
    told = [plan(tmp_path, ["real.safetensors"]).warnings for _ in range(3)]
    assert [len(warnings) for warnings in told] == [1, 0, 0]
    assert "real.safetensors, the only one there is, stood in" in told[0][0]
    assert len(plan(tmp_path, ["other.safetensors"]).warnings) == 1


def test_of_several_none_is_guessed_and_all_are_named(tmp_path: Path) -> None:
    (finding,) = plan(tmp_path, ["a.safetensors", "placeholder.safetensors", "b.safetensors"]).findings
    assert finding["type"] == "missing_model"
    for words in ("`checkpoint`: a.safetensors, b.safetensors,", "set SD_MODEL", "comfy_setup models --only mine"):
        assert words in finding["would_do"]
    assert "placeholder" not in finding["would_do"]


@pytest.mark.parametrize("wanted", [{"sd_model": "b"}, {"checkpoint": "b.safetensors"}])
def test_of_several_the_chosen_one_is_used(tmp_path: Path, wanted: dict[str, Any]) -> None:
    assert plan(tmp_path, ["a.safetensors", "b.safetensors"], **wanted).parameters["checkpoint"] == "b.safetensors"
