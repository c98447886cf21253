"""A workflow reads the files that came with its job, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.check.file_access import check_paths, climbs, file_inputs
from comfy_worker.workflow.edit.input_files import rename_input_files, without_browser_files
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import OBJECT_INFO, node

DEFS = NodeDefs(
    {
        **OBJECT_INFO,
        "LoadVideo": {
            "input": {"required": {"file": ["COMBO", {"options": [], "video_upload": True}]}}
        },
        "LoadAudio": {"input": {"required": {"audio": [[], {"audio_upload": True}]}}},
        "LoadLatent": {"input": {"required": {"latent": [[]]}}},
        "Load3D": {
            "input": {
                "required": {"model_file": [[], {"file_upload": True}], "image": ["LOAD_3D", {}]}
            }
        },
        "Preview3DAdvanced": {"input": {"required": {"viewport_state": ["LOAD_3D", {}]}}},
        "WebcamCapture": {"input": {"required": {"image": ["WEBCAM", {}]}}},
        "ReadText": {"input": {"required": {"file_path": ["STRING", {}], "note": ["STRING", {}]}}},
        "PrimitiveString": {
            "input": {"required": {"value": ["STRING", {}]}},
            "output": ["STRING"],
            "output_name": ["STRING"],
        },
        "Concatenate": {
            "input": {"required": {"a": ["STRING", {}], "b": ["STRING", {}]}},
            "output": ["STRING"],
            "output_name": ["STRING"],
        },
        "LoadFolder": {
            "input": {"required": {"folder": ["COMBO", {"options": ["f" * 32, "set"]}]}}
        },
        "LoadModel": {
            "input": {"required": {"model_path": [["a"]], "mode": ["COMBO", {"options": ["x"]}]}}
        },
        "LoadClip": {
            "input": {"required": {"video": ["STRING", {"vhs_path_extensions": ["mp4"]}]}}
        },
        "WriteText": {"input": {"required": {"path": ["STRING", {}]}}, "output_node": True},
        "Painter": {
            "input": {"required": {"mask": ["STRING", {"image_upload": True, "default": ""}]}}
        },
        "Dynamic": {
            "input": {
                "required": {
                    "combo": [
                        "COMFY_DYNAMICCOMBO_V3",
                        {
                            "options": [
                                {"key": "file", "inputs": {"required": {"path": ["STRING", {}]}}},
                                {
                                    "key": "picture",
                                    "inputs": {
                                        "required": {"image": ["COMBO", {"image_upload": True}]}
                                    },
                                },
                            ]
                        },
                    ],
                    "paths": [
                        "COMFY_AUTOGROW_V3",
                        {
                            "template": {
                                "input": {"required": {"p": ["STRING", {}]}},
                                "prefix": "path",
                                "min": 0,
                            }
                        },
                    ],
                }
            }
        },
        "Out": {"input": {"required": {"any": ["*", {}]}}, "output_node": True},
    }
)
OURS = {"job/0_image.png"}


def reading(class_type: str, further: Workflow | None = None, **inputs: Any) -> Workflow:
    """One node of a class, in front of an output."""
    return {"1": node(class_type, **inputs), "2": node("Out", any=["1", 0]), **(further or {})}


FOREIGN = [
    "example.png",
    "../job/0_image.png",
    "/etc/passwd",
    "other/0_image.png",
    "job/0_image.png [output]",
    "0_image.png [temp]",
    "",
]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize(
    ("class_type", "key"),
    [
        ("LoadImage", "image"),
        ("LoadImageMask", "image"),
        ("LoadVideo", "file"),
        ("LoadAudio", "audio"),
        ("LoadLatent", "latent"),
        ("Load3D", "model_file"),
        ("WebcamCapture", "image"),
    ],
)
def test_a_file_that_was_not_sent_is_refused(class_type: str, key: str, name: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_paths(reading(class_type, None, **{key: name}), DEFS, ["2"], OURS)
    assert str(caught.value) == (
        f"input {key} of node 1 ({class_type}) names '{name}', a file that was not sent; "
        "send it as `image` or in `images`"
    )


@pytest.mark.parametrize(
    "value",
    [
        {"__value__": "../x.png"},
        {"image": "a.png [temp]", "mask": "job/0_image.png"},
        ["a.png", "b.png"],
    ],
)
def test_a_name_does_not_hide_in_a_value(value: object) -> None:
    for graph in (reading("LoadImage", image=value), reading("Load3D", image=value)):
        with pytest.raises(InvalidValue, match="a file that was not sent"):
            check_paths(graph, DEFS, ["2"], OURS)


# What the editor of ComfyUI 0.33 writes.
VIEW = {
    "image": "",
    "mask": "",
    "normal": "",
    "recording": "",
    "camera_info": {"position": {"x": 1.5}, "cameraType": "perspective"},
    "model_3d_info": [{"name": "a.glb"}],
}


@pytest.mark.parametrize("view", ["", VIEW, {**VIEW, "image": "threed/scene1.png [temp]"}])
def test_a_view_names_no_files(view: object) -> None:
    check_paths(reading("Preview3DAdvanced", viewport_state=view), DEFS, ["2"], OURS)


@pytest.mark.parametrize("text", ["../a.png", "/etc/passwd", "a/../../b"])
def test_a_view_does_not_lead_elsewhere(text: str) -> None:
    for view in ({**VIEW, "image": text}, {**VIEW, "camera_info": {"x": [text]}}):
        with pytest.raises(InvalidValue, match="leads out of its folder"):
            check_paths(reading("Preview3DAdvanced", viewport_state=view), DEFS, ["2"], OURS)


def test_a_3d_recording_names_files_beside_its_camera() -> None:
    own = dict.fromkeys(("image", "mask", "normal"), "job/0_image.png")
    check_paths(reading("Load3D", image={**VIEW, **own}), DEFS, ["2"], OURS)
    for wrong in (
        {},
        {"recording": "a.mp4"},
        {"camera_info": {"cameraType": "../x"}},
        {"unknown": "a.png"},
    ):
        recording = {**VIEW, **own, **wrong} if wrong else VIEW
        with pytest.raises(InvalidValue, match="a file that was not sent"):
            check_paths(reading("Load3D", image=recording), DEFS, ["2"], OURS)


def test_a_file_of_the_job_is_read() -> None:
    check_paths(reading("LoadImage", image="job/0_image.png"), DEFS, ["2"], OURS)


def test_what_does_not_run_is_not_looked_at() -> None:
    unused = {"9": node("LoadImage", image="example.png")}
    check_paths(reading("LoadImage", unused, image="job/0_image.png"), DEFS, ["2"], OURS)


def test_a_primitives_filename_is_checked_at_its_source() -> None:
    graph = reading("LoadImage", {"3": node("PrimitiveString", value="../x.png")}, image=["3", 0])
    assert file_inputs(graph, DEFS, ["2"]) == [Input("3", "value")]
    with pytest.raises(
        InvalidValue, match=r"input value of node 3 \(PrimitiveString\) names '../x.png'"
    ):
        check_paths(graph, DEFS, ["2"], OURS)


def test_a_name_that_is_computed_is_refused() -> None:
    graph = reading("LoadImage", {"3": node("Concatenate", a="../", b="x.png")}, image=["3", 0])
    with pytest.raises(
        InvalidValue,
        match=r"input image of node 1 \(LoadImage\) names a file, but another node computes it",
    ):
        check_paths(graph, DEFS, ["2"], OURS)


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../../b", "..\\b", "\\b", ".", "./", "./."]
)
def test_a_text_path_must_stay_in_its_folder(path: str) -> None:
    assert climbs(path) == (path not in (".", "./", "./."))
    linked = reading("ReadText", {"3": node("PrimitiveString", value=path)}, file_path=["3", 0])
    for graph in (reading("ReadText", file_path=path), linked):
        with pytest.raises(InvalidValue, match="which leads out of its folder"):
            check_paths(graph, DEFS, ["2"], OURS)


def test_a_computed_path_is_refused_for_reading() -> None:
    computed = {"3": node("Concatenate", a="../", b="x")}
    with pytest.raises(
        InvalidValue, match=r"input file_path of node 1 \(ReadText\) names a file, but another"
    ):
        check_paths(reading("ReadText", computed, file_path=["3", 0]), DEFS, ["2"], OURS)
    check_paths({"1": node("WriteText", path=["3", 0]), **computed}, DEFS, ["1"], OURS)


def test_a_text_declared_as_path_is_checked() -> None:
    with pytest.raises(InvalidValue, match="which leads out of its folder"):
        check_paths(reading("LoadClip", video="/etc/passwd"), DEFS, ["2"], OURS)


def test_plain_texts_are_not_checked_as_paths() -> None:
    check_paths(reading("ReadText", file_path="", note="/.. and so on"), DEFS, ["2"], OURS)
    check_paths(reading("ReadText", file_path="a..b/c", note=""), DEFS, ["2"], OURS)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc", "other", "f" * 32, "f" * 32 + "/0_image.png", "../x.pt"]
)
def test_a_folder_outside_the_choices_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match="which is none of its choices"):
        check_paths(reading("LoadFolder", folder=name), DEFS, ["2"], OURS)


def test_another_jobs_folder_is_refused_for_any_input() -> None:
    with pytest.raises(InvalidValue, match="which is none of its choices"):
        check_paths(reading("LoadModel", model_path="a", mode="f" * 32), DEFS, ["2"], OURS)


def test_a_folder_that_is_computed_is_refused() -> None:
    graph = reading("LoadFolder", {"3": node("Concatenate", a="f", b="f")}, folder=["3", 0])
    with pytest.raises(
        InvalidValue, match=r"input folder of node 1 \(LoadFolder\) names a file, but another"
    ):
        check_paths(graph, DEFS, ["2"], OURS)


def test_listed_files_and_models_are_checked_elsewhere() -> None:
    for graph in (
        reading("LoadFolder", folder="set"),
        reading("LoadModel", model_path="ghost.safetensors", mode="strange"),
        reading("LoadFolder", folder="job/0_image.png"),
    ):
        check_paths(graph, DEFS, ["2"], OURS)


@pytest.mark.parametrize(
    "inputs",
    [
        {"combo": "file", "combo.path": "/etc/passwd"},
        {"combo": "file", "combo.path": "../../x"},
        {"combo": "picture", "combo.image": "example.png"},
        {"combo": "picture", "combo.image": "f" * 32 + "/a.png"},
    ],
)
def test_inputs_of_a_dynamic_choice_are_checked(inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        check_paths(reading("Dynamic", **inputs), DEFS, ["2"], OURS)


def test_own_files_of_a_dynamic_choice_pass() -> None:
    workflow = reading("Dynamic", **{"combo": "picture", "combo.image": "job/0_image.png"})
    check_paths(workflow, DEFS, ["2"], OURS)
    assert file_inputs(workflow, DEFS, ["2"]) == [Input("1", "combo.image")]


def test_all_files_are_named_at_once() -> None:
    further = {
        "3": node("LoadAudio", audio="a.wav"),
        "4": node("Out", any=["3", 0]),
    }
    with pytest.raises(
        InvalidValue, match=r"names 'a.png', .* \(1 more in the details\)"
    ) as caught:
        check_paths(reading("LoadImage", further, image="a.png"), DEFS, ["2", "4"], OURS)
    assert caught.value.details == [
        {"node_id": "1", "input": "image", "given": "a.png"},
        {"node_id": "3", "input": "audio", "given": "a.wav"},
    ]


def test_a_canvas_without_a_drawing_passes() -> None:
    check_paths(reading("Painter", mask=""), DEFS, ["2"], OURS)
    with pytest.raises(InvalidValue):
        check_paths(reading("Painter", mask="painter/a.png [temp]"), DEFS, ["2"], OURS)


def test_an_unsent_drawing_is_left_out() -> None:
    workflow = reading("Painter", mask="painter/a.png [temp]")
    emptied, warnings = without_browser_files(workflow, DEFS, OURS)
    assert emptied["1"]["inputs"] == {"mask": ""}
    assert warnings == [
        "mask of node 1 is left empty: the drawing was not sent; send its file in `images`"
    ]
    named, used = rename_input_files(workflow, DEFS, {"painter/a.png": "job/0_image.png"})
    assert (named["1"]["inputs"]["mask"], used) == ("job/0_image.png", {"painter/a.png"})
    assert without_browser_files(named, DEFS, OURS) == (named, [])
