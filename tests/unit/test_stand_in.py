"""Which checkpoint stands in where a template's own is not installed, and who is told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_common.placeholder_names import TOY_CHECKPOINT
from comfy_local.toy_model.files import PACKED, unpack
from comfy_worker.errors import ModelNotFound
from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.planning import stand_in
from comfy_worker.planning.plan import Plan, PlanContext, PlanningRules
from comfy_worker.planning.planner import prepare
from comfy_worker.planning.templates import Params, Template
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import OBJECT_INFO, node, txt2img

OWN = "sd15.safetensors"
URL = "https://huggingface.co/owner/repo/resolve/main/sd15.safetensors"


@pytest.fixture(autouse=True)
def nobody_was_told() -> Iterator[None]:
    stand_in._announced.clear()
    yield
    stand_in._announced.clear()


def plan(
    tmp_path: Path,
    files: list[str],
    sd_model: str = "",
    nodes: dict[str, Any] | None = None,
    model: Path | None = None,
    rules: PlanningRules | None = None,
    **changes: Any,
) -> Plan:
    """A template's job on a worker that has these checkpoints."""
    info = copy.deepcopy(OBJECT_INFO)
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [files]
    comfyui: Any = SimpleNamespace(
        version="",
        defs=NodeDefs(info),
        model_path=lambda _folder, _name: model,
        explain=lambda _class_type: None,
        validate=lambda _workflow: None,
        searched=lambda folder: [f"/models/{folder}"],
        refresh=lambda: None,
    )
    params = Params(needs=(ModelFile("checkpoints", OWN, URL),))
    job = Job("job", JobInput.read({"prompt": "x", **changes}))
    template = Template("mine", txt2img(**(nodes or {})), params)
    input_files = InputFiles(tmp_path, Settings().input_limits)
    rules = rules or PlanningRules(sd_model)
    return prepare(PlanContext(job, template, comfyui, input_files, rules=rules))


def test_a_real_file_wins_over_a_placeholder(tmp_path: Path) -> None:
    for files in (
        ["placeholder.safetensors", "real.safetensors"],
        ["sub/placeholder-b.safetensors", "real.safetensors"],
        [TOY_CHECKPOINT, "placeholder.safetensors", "real.safetensors"],
    ):
        assert plan(tmp_path, files).parameters["checkpoint"] == "real.safetensors"


def test_a_placeholder_alone_stands_in(tmp_path: Path) -> None:
    assert (
        plan(tmp_path, ["placeholder.safetensors"]).parameters["checkpoint"]
        == "placeholder.safetensors"
    )


def test_the_toy_wins_over_a_placeholder(tmp_path: Path) -> None:
    planned = plan(tmp_path, ["placeholder.safetensors", TOY_CHECKPOINT])
    assert planned.parameters["checkpoint"] == TOY_CHECKPOINT


def test_the_toy_is_announced_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        (warning,) = plan(tmp_path, [TOY_CHECKPOINT]).warnings
        assert f"{OWN} is not installed; {TOY_CHECKPOINT} stood in, a toy model" in warning


@pytest.mark.parametrize("name", [OWN, "sd15", "toy", "stabilityai/sdxl-turbo"])
def test_the_toy_replaces_no_named_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="is not installed"):
        plan(tmp_path, [TOY_CHECKPOINT], checkpoint=name)


def test_a_named_toy_is_used(tmp_path: Path) -> None:
    planned = plan(tmp_path, [TOY_CHECKPOINT, "real.safetensors"], checkpoint="comfy-worker-toy")
    assert planned.parameters["checkpoint"] == TOY_CHECKPOINT


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, {"width": 256, "height": 256, "cfg": 1}),
        ({"width": 512}, {"width": 512, "cfg": 1}),
        ({"cfg": 3}, {"width": 256, "height": 256, "cfg": 3}),
    ],
)
def test_the_toy_gets_its_size_and_guidance(
    tmp_path: Path, wanted: dict[str, Any], expected: dict[str, Any]
) -> None:
    toy = tmp_path / TOY_CHECKPOINT
    unpack(PACKED, toy)
    parameters = plan(tmp_path, [TOY_CHECKPOINT], model=toy, **wanted).parameters
    assert {name: parameters[name] for name in expected} == expected


def test_the_stand_in_is_told_once(tmp_path: Path) -> None:
    warned = [plan(tmp_path, ["real.safetensors"]).warnings for _ in range(3)]
    assert [len(warnings) for warnings in warned] == [1, 0, 0]
    assert "real.safetensors, the only one there is, stood in" in warned[0][0]
    assert len(plan(tmp_path, ["other.safetensors"]).warnings) == 1


def test_the_warning_survives_a_second_try(tmp_path: Path) -> None:
    """A missing file makes the planner read ComfyUI's lists again, and plan once more."""
    nodes = {
        "vae": node("VAELoader", vae_name="absent.safetensors"),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
    }
    planned = plan(tmp_path, ["real.safetensors"], nodes=nodes)
    assert [finding["given"] for finding in planned.findings] == ["absent.safetensors"]
    assert len([text for text in planned.warnings if "stood in" in text]) == 1


def test_several_candidates_are_all_named(tmp_path: Path) -> None:
    (finding,) = plan(
        tmp_path, ["a.safetensors", "placeholder.safetensors", "b.safetensors"]
    ).findings
    assert finding["type"] == "missing_model"
    for words in (
        "`checkpoint`: a.safetensors, b.safetensors,",
        "set SD_MODEL",
        "comfy_setup models --only mine",
    ):
        assert words in finding["would_do"]
    assert "placeholder" not in finding["would_do"]


@pytest.mark.parametrize("wanted", [{"sd_model": "b"}, {"checkpoint": "b.safetensors"}])
def test_of_several_the_chosen_one_is_used(tmp_path: Path, wanted: dict[str, Any]) -> None:
    assert (
        plan(tmp_path, ["a.safetensors", "b.safetensors"], **wanted).parameters["checkpoint"]
        == "b.safetensors"
    )


def test_the_templates_own_sd_model_is_downloaded(tmp_path: Path) -> None:
    planned = plan(tmp_path, [], rules=PlanningRules(OWN, downloads_models=True))
    assert [finding["given"] for finding in planned.findings] == [OWN]


LISTED = (ModelFile("checkpoints", "sd_xl_turbo_1.0_fp16.safetensors", URL),)


@pytest.mark.parametrize(
    "rules",
    [
        PlanningRules("stabilityai/sdxl-turbo", listed=LISTED),
        PlanningRules("other", downloads_models=True, listed=LISTED),
        PlanningRules("stabilityai/sdxl-turbo", downloads_models=True, listed=LISTED),
    ],
)
def test_an_sd_model_without_download_fails(tmp_path: Path, rules: PlanningRules) -> None:
    with pytest.raises(ModelNotFound):
        plan(tmp_path, [], rules=rules, validate_only=True)
