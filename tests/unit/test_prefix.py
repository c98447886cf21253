"""Saving nodes write into the job's own folder, and those that would encode pictures are served by ours."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import InvalidValue, InvalidWorkflow
from comfy_worker.workflow.graph import title_of
from comfy_worker.workflow.isolate import (
    RAW_OUTPUT,
    check_reserved,
    isolate_outputs,
    output_folders,
    replace_save_nodes,
)
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import DEFS as CORE
from tests.core_nodes import node

DEFS = NodeDefs(
    {
        name: {"output_node": name != "Loader"}
        for name in ("SaveImage", "PreviewAny", "Loader", RAW_OUTPUT)
    }
)


def saving(class_type: str, **inputs: object) -> dict[str, dict[str, Any]]:
    return {"1": {"class_type": class_type, "inputs": inputs}}


def graph(prefix: object) -> dict[str, dict[str, Any]]:
    return {
        "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}},
        "2": {"class_type": "Loader", "inputs": {}},
    }


def test_prefixes_move_below_the_folder_in_a_copy() -> None:
    workflow = graph("set/ComfyUI")
    assert isolate_outputs(workflow, "job", DEFS) == graph("job/set/ComfyUI")
    assert workflow == graph("set/ComfyUI")


@pytest.mark.parametrize("prefix", ["", ".", "./"])
def test_an_empty_prefix_does_not_show_the_folder(prefix: str) -> None:
    assert isolate_outputs(graph(prefix), "job", DEFS) == graph("job/ComfyUI")


def test_output_nodes_without_a_prefix_get_the_folder() -> None:
    workflow: dict[str, dict[str, Any]] = {
        **graph(["9", 0]),
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    moved = isolate_outputs(workflow, "job", DEFS)
    assert moved["1"]["inputs"] == {"filename_prefix": ["9", 0], "comfy_worker_folder": "job"}
    assert moved["3"]["inputs"] == {"source": ["2", 0], "comfy_worker_folder": "job"}
    assert moved["2"] == workflow["2"]


@pytest.mark.parametrize(
    ("inputs", "moved", "folders"),
    [
        ({"filename_prefix": "a"}, {"filename_prefix": "job/a"}, ["job"]),
        ({"filename_prefix": "set/b/a"}, {"filename_prefix": "job/set/b/a"}, ["job", "job/set/b"]),
        ({"filename_prefix": "%date:yyyy%/a"}, {"filename_prefix": "job/%date:yyyy%/a"}, ["job"]),
        (
            {"filename_prefix": "a", "output_path": ""},
            {"filename_prefix": "job/a", "output_path": ""},
            ["job"],
        ),
        ({"filename_prefix": "a", "output_path": "none"}, {"filename_prefix": "job/a"}, ["job"]),
        ({"filename_prefix": "a", "output_path": "."}, {"filename_prefix": "job/a"}, ["job"]),
        (
            {"filename_prefix": "a", "output_path": "sets"},
            {"output_path": "job/sets"},
            ["job", "job/sets"],
        ),
        (
            {"filename_prefix": "b/a", "output_path": "x/y/"},
            {"output_path": "job/x/y"},
            ["job", "job/x/y/b"],
        ),
        (
            {"filename_prefix": "a", "output_path": "x/[time(%Y)]"},
            {"output_path": "job/x/[time(%Y)]"},
            ["job", "job/x"],
        ),
        ({"filename": "a", "output_path": "x"}, {"output_path": "job/x"}, ["job", "job/x"]),
    ],
)
def test_the_folders_that_a_node_writes_to(
    inputs: dict[str, str], moved: dict[str, str], folders: list[str]
) -> None:
    workflow = isolate_outputs(saving("Image Save", **inputs), "job", DEFS)
    assert workflow == saving("Image Save", **{**inputs, **moved})
    assert output_folders(workflow, "job") == folders


@pytest.mark.parametrize("path", ["/tmp", "../x", "a/../../x", "\\\\host", "a\0", "x" * 5000])
def test_a_folder_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidValue, match="output_path of node 1"):
        isolate_outputs(saving("Image Save", filename_prefix="a", output_path=path), "job", DEFS)


@pytest.mark.parametrize(
    ("declared", "own"),
    [
        ({"input": {"hidden": {"p": "PROMPT"}}}, True),
        ({"input": {"hidden": {"i": ["EXTRA_PNGINFO"]}}}, True),
        ({"input": {"hidden": {"k": "API_KEY_COMFY_ORG"}}}, True),
        ({"api_node": True}, True),
        ({"input": {"hidden": {"id": "UNIQUE_ID"}}}, False),
        ({}, False),
    ],
)
def test_impure_nodes_are_cached_for_one_job_only(declared: dict[str, Any], own: bool) -> None:
    moved = isolate_outputs(saving("Odd"), "job", NodeDefs({"Odd": declared}))
    assert moved == saving("Odd", **({"comfy_worker_folder": "job"} if own else {}))


SERVED = {
    "1": {
        "class_type": "SaveImage",
        "inputs": {"images": ["2", 0], "filename_prefix": "a/b"},
        "_meta": {"title": "T"},
    },
    "2": {"class_type": "Loader", "inputs": {}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}},
}


def test_nodes_that_encode_pictures_are_served_by_ours() -> None:
    served = replace_save_nodes(SERVED, DEFS)
    assert served["1"] == {
        "class_type": RAW_OUTPUT,
        "inputs": {"images": ["2", 0], "filename_prefix": "a/b", "folder_type": "output"},
        "_meta": {"title": "T"},
    }
    assert served["2"] == SERVED["2"]
    assert [
        (served[node_id]["class_type"], served[node_id]["inputs"]["folder_type"])
        for node_id in "34"
    ] == [
        (RAW_OUTPUT, "temp"),
        (RAW_OUTPUT, "output"),
    ]
    assert served["3"]["inputs"]["filename_prefix"] != served["4"]["inputs"]["filename_prefix"]
    assert SERVED["1"]["class_type"] == "SaveImage"
    assert title_of(served, "3") == "PreviewImage"


def advanced(**values: Any) -> dict[str, dict[str, Any]]:
    inputs = {"images": ["2", 0], "filename_prefix": "a/b", **values}
    return {"1": {"class_type": "SaveImageAdvanced", "inputs": inputs}}


EIGHT_BIT = {"format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"}


def test_advanced_pngs_of_eight_bits_are_served() -> None:
    served = replace_save_nodes(advanced(**EIGHT_BIT), DEFS)
    assert served["1"] == {
        "class_type": RAW_OUTPUT,
        "inputs": {
            "images": ["2", 0],
            "filename_prefix": "a/b",
            "folder_type": "output",
            "ending": ".png",
        },
        "_meta": {"title": "SaveImageAdvanced"},
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"format.bit_depth": "16-bit"},
        {"format": "exr", "format.bit_depth": "32-bit float"},
        {"format": "webp"},  # of a later ComfyUI
        {"format.bit_depth": ["3", 0]},
        {"format": ["3", 0]},
    ],
)
def test_other_advanced_pictures_stay(changed: dict[str, Any]) -> None:
    workflow = advanced(**{**EIGHT_BIT, **changed})
    assert replace_save_nodes(workflow, DEFS) == workflow
    del workflow["1"]["inputs"]["format.bit_depth"]
    assert replace_save_nodes(workflow, DEFS) == workflow


def test_without_our_node_the_graph_stays() -> None:
    assert replace_save_nodes(SERVED, NodeDefs({})) == SERVED


@pytest.mark.parametrize(
    "prefix",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "..\\x",
        "\\x",
        "x" * 201,
        "ü" * 101,
        "x/" * 1001,
        "a\0b",
        "\ud800",
    ],
)
def test_a_prefix_that_leaves_the_folder_is_refused(prefix: str) -> None:
    with pytest.raises(
        InvalidValue,
        match="filename_prefix of node 1 must be a text that stays in the output folder",
    ):
        isolate_outputs(graph(prefix), "job", DEFS)


def test_a_prefix_in_a_primitive_is_checked_too() -> None:
    workflow = {
        "1": node("SaveImage", filename_prefix=["2", 0]),
        "2": node("PrimitiveString", value="../x"),
    }
    with pytest.raises(
        InvalidValue, match=r"filename_prefix of node 1 must be a text .*, not '\.\./x'"
    ):
        isolate_outputs(workflow, "job", CORE)


@pytest.mark.parametrize(
    ("class_type", "inputs", "moved"),
    [
        (
            "SaveImageDataSetToFolder",
            {"folder_name": "set", "filename_prefix": "a"},
            {"folder_name": "job/set"},
        ),
        ("SaveTrainingDataset", {"folder_name": "set"}, {"folder_name": "job/set"}),
        ("LoadTrainingDataset", {"folder_name": "set"}, {"folder_name": "job/set"}),
        ("SaveLoRA", {"prefix": "loras/mine"}, {"prefix": "job/loras/mine"}),
        ("AddTextPrefix", {"prefix": "a photo of"}, {}),
    ],
)
def test_datasets_and_trained_loras_go_there_too(
    class_type: str, inputs: dict[str, object], moved: dict[str, object]
) -> None:
    assert isolate_outputs(saving(class_type, **inputs), "job", DEFS) == saving(
        class_type, **{**inputs, **moved}
    )


@pytest.mark.parametrize("folder_name", ["../set", ["9", 0], {"__value__": "/etc"}])
def test_a_dataset_outside_the_output_folder_is_refused(folder_name: object) -> None:
    with pytest.raises(
        InvalidValue, match="folder_name of node 1 must be a text that stays in the output folder"
    ):
        isolate_outputs(saving("LoadTrainingDataset", folder_name=folder_name), "job", DEFS)


def test_a_dataset_filename_outside_its_folder_is_refused() -> None:
    with pytest.raises(InvalidValue, match="filename_prefix of node 1"):
        isolate_outputs(
            saving("SaveImageDataSetToFolder", folder_name="set", filename_prefix="../x"),
            "job",
            DEFS,
        )


@pytest.mark.parametrize(
    ("reserved", "reason"),
    [
        (node(RAW_OUTPUT, folder_type="temp"), "ComfyWorkerOutput is the worker's own class"),
        (node("SaveImage", comfy_worker_folder="x"), "comfy_worker_folder is the worker's own"),
    ],
)
def test_the_workers_own_names_are_refused(reserved: dict[str, Any], reason: str) -> None:
    check_reserved({"1": node("SaveImage")})
    with pytest.raises(InvalidWorkflow, match=f"node 2: {reason}"):
        check_reserved({"1": node("SaveImage"), "2": reserved})
