"""Named templates: files in folders, read anew each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_worker.errors import ComfyUITooOld, InvalidInput, InvalidWorkflow, UnknownWorkflow
from comfy_worker.planning.templates import (
    Requirements,
    Templates,
    choose_template,
    is_too_old,
    template_for_version,
)
from comfy_worker.request.schema import JobInput

GRAPH = {"1": {"class_type": "KSampler", "inputs": {"seed": 1}}}


def write(folder: Path, name: str, content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_dropped_in_file_becomes_a_template(tmp_path: Path) -> None:
    templates = Templates([tmp_path, tmp_path / "not there"])
    assert templates.names() == []
    write(tmp_path, "mine.json", GRAPH)
    write(tmp_path, "mine.params.json", {"description": "Mine.", "required": ["image"]})
    assert templates.names() == ["mine"]
    template = templates.load("mine")
    assert template.workflow == GRAPH
    assert template.params.description == "Mine."


def test_the_first_folder_wins(tmp_path: Path) -> None:
    write(tmp_path / "a", "x.json", GRAPH)
    write(tmp_path / "b", "x.json", {"2": GRAPH["1"]})
    assert Templates([tmp_path / "a", tmp_path / "b"]).load("x").workflow == GRAPH


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("txt2imgg", "did you mean txt2img"),
        ("zzz", "there are txt2img"),
        ("../txt2img", "no workflow is named"),
    ],
)
def test_an_unknown_name_names_the_near_ones(tmp_path: Path, name: str, hint: str) -> None:
    write(tmp_path, "txt2img.json", GRAPH)
    with pytest.raises(UnknownWorkflow, match=hint):
        Templates([tmp_path]).load(name)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (
            {"parameters": {"x": {"node": "7", "input": "seed"}}},
            "parameter x is 7.seed, which the workflow lacks",
        ),
        (
            {"parameters": {"x": {"node": "1", "input": "sead"}}},
            "parameter x is 1.sead, which the workflow lacks",
        ),
        (
            {"parameters": {"x": {"node": 1, "input": "seed"}}},
            "parameters.x.node: Input should be a valid string",
        ),
        (
            {"parameters": {"x": {"node": "1", "input": "seed", "minimum": 9, "maximum": 1}}},
            "parameters.x: minimum should be at most maximum",
        ),
        ({"required": ["nope"]}, "nope is required but is not a key of a request"),
    ],
)
def test_a_mistake_in_params_json_is_told(tmp_path: Path, params: object, sentence: str) -> None:
    write(tmp_path, "mine.json", GRAPH)
    write(tmp_path, "mine.params.json", params)
    with pytest.raises(InvalidWorkflow) as caught:
        Templates([tmp_path]).load("mine")
    assert str(caught.value) == f"the template file mine.params.json must be corrected: {sentence}"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("x.json", "{cut"),
        ("x.json", {"1": {"inputs": {}}}),
        ("x.json", []),
        ("x.params.json", {"wrong": 1}),
        ("x.params.json", "{cut"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: object) -> None:
    write(tmp_path, "x.json", GRAPH)
    write(tmp_path, file, content)
    with pytest.raises(InvalidWorkflow):
        Templates([tmp_path]).load("x")


def test_what_is_given_decides_on_the_template(tmp_path: Path) -> None:
    for name in ("txt2img", "img2img", "inpaint"):
        write(tmp_path, f"{name}.json", GRAPH)
    templates = Templates([tmp_path])

    def chosen(**job_input: object) -> str | None:
        template = choose_template(JobInput.read(job_input), templates)
        return template.name if template else None

    assert chosen() == "txt2img"
    assert chosen(image="x") == "img2img"
    assert chosen(image="x", mask="x") == "inpaint"
    assert chosen(image="x", workflow="txt2img") == "txt2img"
    assert chosen(workflow=GRAPH) is None


def test_what_a_template_requires_must_be_given(tmp_path: Path) -> None:
    write(tmp_path, "x.json", GRAPH)
    strength = {"node": "1", "input": "seed"}
    write(
        tmp_path,
        "x.params.json",
        {"required": ["image", "strength"], "parameters": {"strength": strength}},
    )
    with pytest.raises(InvalidInput, match="workflow 'x' needs image and strength"):
        choose_template(JobInput.read({"workflow": "x"}), Templates([tmp_path]))
    job_input = JobInput.read({"workflow": "x", "image": "x", "parameters": {"strength": 1}})
    assert choose_template(job_input, Templates([tmp_path]))


@pytest.mark.parametrize(
    ("needed", "installed", "too_old"),
    [
        ("", "0.3.75", False),
        ("0.24.1", "", False),
        ("0.24.1", "0.3.75", True),
        ("0.24.1", "0.24.1", False),
        ("0.24.0", "0.24", False),
        ("0.4", "0.3.75", True),
        ("0.30.0", "0.33.0", False),
        ("0.30.0", "1.0", False),
    ],
)
def test_a_version_is_compared_number_by_number(needed: str, installed: str, too_old: bool) -> None:
    assert is_too_old(Requirements(comfyui=needed), installed) is too_old


def test_an_older_template_stands_in(tmp_path: Path) -> None:
    write(tmp_path, "new.json", GRAPH)
    write(tmp_path, "new.params.json", {"requirements": {"comfyui": "0.30"}, "older": "plain"})
    write(tmp_path, "plain.json", GRAPH)
    write(tmp_path, "plain.params.json", {"requirements": {"comfyui": "0.3.80"}})
    template = Templates([tmp_path]).load("new")
    assert template_for_version(template, "0.33.0").name == "new"
    assert template_for_version(template, "0.4.0").name == "plain"
    with pytest.raises(ComfyUITooOld, match=r"'plain' needs ComfyUI 0\.3\.80 or newer") as caught:
        template_for_version(template, "0.3.75")
    assert caught.value.details == [{"workflow": "plain", "needs": "0.3.80", "installed": "0.3.75"}]


def test_an_older_template_must_exist(tmp_path: Path) -> None:
    write(tmp_path, "new.json", GRAPH)
    write(tmp_path, "new.params.json", {"older": "nothing"})
    with pytest.raises(InvalidWorkflow, match="older names 'nothing', which is not a template"):
        Templates([tmp_path]).load("new")
    write(tmp_path, "nothing.json", GRAPH)
    assert Templates([tmp_path]).load("new").older == Templates([tmp_path]).load("nothing")
