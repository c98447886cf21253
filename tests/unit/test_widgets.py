"""Values of widgets go to their inputs: by name, by place, past buttons, of several types."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.node_defs import NodeDefs
from tests.editor_files import editor_file, node

READER = {
    "file_name": ("STRING", {"default": ""}),
    "mode": (["single", "range", "all"],),
    "first": ("INT", {"default": 0}),
    "last": ("INT", {"default": 0}),
}
SEEDED = {
    "model": (["a.ckpt"],),
    "seed": ("INT", {}),
    "scale": ("FLOAT", {}),
    "tiled": ("BOOLEAN", {}),
}
SEVERAL = {"frames": ("INT", {}), "rate": ("FLOAT,INT", {}), "batch": ("INT", {})}
BITS = {"bits": ["COMBO", {"options": [8, 16]}], "note": ["STRING", {}], "level": ["INT", {}]}
CODEC = [
    "COMFY_DYNAMICCOMBO_V3",
    {"options": [{"key": "x264", "inputs": {"required": {"crf": ["FLOAT", {"default": 23.0}]}}}]},
]
SAVER = {
    "prefix": ("STRING", {"default": "ComfyUI"}),
    "format": (
        "COMFY_DYNAMICCOMBO_V3",
        {
            "options": [
                {"key": "png", "inputs": {"required": BITS, "optional": {"mask": ["MASK", {}]}}},
                {"key": "mp4", "inputs": {"required": {"codec": CODEC}}},
            ]
        },
    ),
}
DEFS = NodeDefs(
    {
        name: {
            "input": {"required": {key: list(spec) for key, spec in inputs.items()}},
            "output": ["IMAGE"],
        }
        for name, inputs in (
            ("Reader", READER),
            ("Seeded", SEEDED),
            ("Several", SEVERAL),
            ("Saver", SAVER),
            ("View", {"viewport_state": ("LOAD_3D", {})}),
        )
    }
)


def inputs_of(class_type: str, values: Any, inputs: Any = None, **more: Any) -> dict[str, Any]:
    entry = {**node(1, class_type, inputs, "IMAGE"), "widgets_values": values, **more}
    return read_workflow(editor_file(entry), DEFS).workflow["1"]["inputs"]


READ = {"file_name": "clip.mov", "mode": "range", "first": 10, "last": 40}
SEED = {"model": "a.ckpt", "seed": 5, "scale": 1.5, "tiled": True}


@pytest.mark.parametrize(
    ("class_type", "values", "expected"),
    [
        ("Reader", ["clip.mov", "range", 10, 40], READ),
        ("Reader", ["clip.mov", "browse", "open_in_explorer", "range", 10, 40], READ),
        ("Reader", ["clip.mov", None, None, "range", 10, 40], READ),
        ("Reader", ["clip.mov", "range", 10, 40, "preview"], READ),
        ("Reader", ["clip.mov", "range", 10, "refresh", 40, None], READ),
        ("Seeded", ["a.ckpt", 5, "randomize", 1.5, True], SEED),
        ("Seeded", ["a.ckpt", 5, 1.5, True], SEED),
        ("Seeded", ["upload", "a.ckpt", 5, "randomize", 1.5, True], SEED),
        ("Seeded", ["a.ckpt", "reload", 5, "fixed", 1.5, "reset", True], SEED),
        (
            "Seeded",
            ["elsewhere.ckpt", 5, "fixed", "reset", 1.5, True],
            {**SEED, "model": "elsewhere.ckpt"},
        ),
    ],
)
def test_buttons_shift_no_values(
    class_type: str, values: list[Any], expected: dict[str, Any]
) -> None:
    assert inputs_of(class_type, values) == expected


@pytest.mark.parametrize(
    "more",
    [
        {"widgets_values": ["x", "y", "z", 1], "widgets_values_named": {**READ, "browse": None}},
        {"widgets_values": {**READ}},
        {"widgets_values": {"0": "clip.mov", "1": "range", "2": 10, "3": 40}},
    ],
)
def test_names_count_before_places(more: dict[str, Any]) -> None:
    assert inputs_of("Reader", [], **more) == READ


@pytest.mark.parametrize(
    "named",
    [
        {**READ, "file_name": "old.mov", "last": 39},
        {"first": 1, "mode": "all", "last": 2, "file_name": "old.mov"},
    ],
    ids=["the order of the class", "another order"],
)
def test_the_list_counts_where_both_differ(named: dict[str, Any]) -> None:
    """Names tell what the list holds; someone who edits the file by hand edits the list."""
    values = [READ[name] for name in named]
    assert inputs_of("Reader", values, widgets_values_named=named) == READ
    with_buttons = [values[0], None, *values[1:], None]
    more = {"widgets_values_named": {**named, "browse": None}}
    assert inputs_of("Reader", with_buttons, **more) == READ


def test_a_named_value_gives_way_to_a_link() -> None:
    load = node(2, "Load", {}, "INT")
    reader = node(1, "Reader", {"=first": ("INT", (2, 0))}, "IMAGE", ["clip.mov", "range", 10, 40])
    file = editor_file({**reader, "widgets_values_named": READ}, load)
    assert read_workflow(file, DEFS).workflow["1"]["inputs"] == {**READ, "first": ["2", 0]}


def test_an_input_of_several_types_has_a_widget() -> None:
    assert inputs_of("Several", [97, 24, 2]) == {"frames": 97, "rate": 24, "batch": 2}
    marked = {"=frames": ("INT", None), "=rate": ("FLOAT,INT", None), "=batch": ("INT", None)}
    assert inputs_of("Several", [97, 24, 2], marked) == {"frames": 97, "rate": 24, "batch": 2}


def test_a_multi_type_input_may_be_a_socket() -> None:
    assert inputs_of("Several", [97, 2]) == {"frames": 97, "batch": 2}
    socket = {"=frames": ("INT", None), "rate": ("FLOAT,INT", None), "=batch": ("INT", None)}
    assert inputs_of("Several", [97, 2], socket) == {"frames": 97, "batch": 2}


PNG = {"format": "png", "format.bits": 8, "format.note": "", "format.level": 0}
MP4 = {"format": "mp4", "format.codec": "x264", "format.codec.crf": 23.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"], PNG),
        (["a", "png", 16], {**PNG, "format.bits": 16}),
        (["a", "mp4"], MP4),
        (["a", "mp4", "x264", 18.0], {**MP4, "format.codec.crf": 18.0}),
        (["a", "gif"], {"format": "gif"}),
    ],
)
def test_old_files_get_the_first_choices(values: list[Any], expected: dict[str, Any]) -> None:
    assert inputs_of("Saver", values) == {"prefix": "a", **expected}


def test_a_view_keeps_its_camera() -> None:
    camera = {"position": {"x": 1.5}, "cameraType": "perspective"}
    texts = {"image": "", "mask": "", "normal": "", "recording": ""}
    view = {**texts, "camera_info": camera, "model_3d_info": []}
    properties = {"Camera Config": {"fov": 35, "state": camera}}
    assert inputs_of("View", [""], properties=properties) == {"viewport_state": view}
    for other in ({}, {"Camera Config": {}}, {"Camera Config": "x"}):
        assert inputs_of("View", [""], properties=other) == {"viewport_state": ""}
