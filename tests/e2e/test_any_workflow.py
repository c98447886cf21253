"""Any workflow through a worker: editor files, pictures with a graph, what is wrong, what would be queued."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import placeholders
from tests.e2e.conftest import Client, pictures
from tests.editor_files import FILES
from tests.graphs import txt2img

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def editor_file() -> dict[str, Any]:
    """Text to image in the editor's format, small, with the checkpoint that is there."""
    file: dict[str, Any] = json.loads(json.dumps(FILES["plain"]))
    for graph_node in file["nodes"]:
        if graph_node["type"] == "CheckpointLoaderSimple":
            graph_node["widgets_values"] = [placeholders.CHECKPOINT]
        elif graph_node["type"] == "KSampler":
            graph_node["widgets_values"][2] = 2
    return file


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_an_editor_file_runs_and_is_filled(worker: Client, form: Any) -> None:
    result = worker.output(
        {"workflow": form(editor_file()), "prompt": "a fox", "seed": 5, "width": 128}
    )
    assert pictures(result)[0].size == (128, 64)
    assert (result["workflow"], result["parameters"]["prompt"]) == ("custom", "a fox")


def test_a_picture_that_was_made_is_a_workflow(worker: Client) -> None:
    first = worker.output({"workflow": editor_file(), "seed": 7})
    again = worker.output({"workflow": first["images"][0]["data"], "seed": 7})
    assert pictures(again)[0].tobytes() == pictures(first)[0].tobytes()


def test_all_that_is_wrong_comes_at_once(worker: Client) -> None:
    broken = {"steps": 0, "latent_image": ["nowhere", 0]}
    graph = txt2img(loader={"ckpt_name": "absent.safetensors"}, sampler=broken)
    job = worker.runsync({"workflow": graph})
    assert job["status"] == "FAILED"
    for word in ("INVALID_WORKFLOW", "missing_model", "value_smaller_than_min", "dangling_link"):
        assert word in json.dumps(job)


def test_validate_only_answers_what_would_be_queued(worker: Client) -> None:
    answer = worker.output({"workflow": editor_file(), "steps": 3, "validate_only": True})
    (sampler,) = (
        graph_node
        for graph_node in answer["workflow"].values()
        if graph_node["class_type"] == "KSampler"
    )
    assert sampler["inputs"]["steps"] == 3
    assert (answer["findings"], answer["roles"]["samplers"]) == ([], ["13"])
    assert answer["needs"][0] | {"url": None} == {
        "folder": "checkpoints",
        "file": placeholders.CHECKPOINT,
        "url": None,
        "installed": True,
    }
    broken = worker.output({"workflow": txt2img(sampler={"steps": 0}), "validate_only": True})
    assert [finding["type"] for finding in broken["findings"]] == ["value_smaller_than_min"]
