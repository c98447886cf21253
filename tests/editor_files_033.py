"""Workflows in UI format with what the editor of ComfyUI 0.33 (frontend 1.49) added, one mechanism each.

``tests/unit/editor_files_033.json`` holds what the frontend exports of them; to renew it, from the repository
root and with ``COMFYUI_DIR`` set to a ComfyUI 0.33:

    python -m tests.editor_files_033
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_common.paths import REPO, comfyui_dir
from tests.editor_files import BYPASSED, FILES, MUTED, Node, Source, editor_file, node, subgraph

__all__ = ["FILES_033", "PRIMITIVE_OUTSIDE", "RECORDED_033"]

RECORDED_033 = REPO / "tests" / "unit" / "editor_files_033.json"

INT, VALUE = "INT", {"v": "INT"}
PART = "11111111-2222-4333-8444-555555555555"
OUTER = "11111111-2222-4333-8444-666666666666"
FROM_OUTSIDE = (-10, 0)
CURVE = {"points": [[0, 0], [0.4, 0.6], [1, 1]], "interpolation": "monotone_cubic"}
BOX = {"x": 1, "y": 2, "width": 30, "height": 40}


def _int(node_id: int, value: int, source: Source | None = None, **more: Any) -> Node:
    inputs = {"=value": (INT, source)}
    return node(node_id, "PrimitiveInt", inputs, INT, [value, "fixed"], **more)


def _show(node_id: int, source: Source | None) -> Node:
    return node(node_id, "PreviewAny", {"source": ("*", source)}, "", [])


def _host(
    node_id: int,
    values: Sequence[Any] = (),
    node_type: str = PART,
    source: Source | None = None,
    **more: Any,
) -> Node:
    """A node that stands for a subgraph with one input."""
    return node(node_id, node_type, {"=v": (INT, source)}, "", list(values), **more)


def _file(
    *nodes: Node, inner: Sequence[Node], inputs: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A file with one subgraph."""
    declared = VALUE if inputs is None else inputs
    return editor_file(*nodes, subgraphs=[subgraph(PART, declared, {}, *inner)])


def _nested(
    outer_values: Sequence[Any], inner_values: Sequence[Any], *more: Node
) -> dict[str, Any]:
    """A subgraph whose input leads to a subgraph."""
    middle = subgraph(OUTER, VALUE, {}, _host(20, inner_values, source=FROM_OUTSIDE), *more)
    inner = subgraph(PART, VALUE, {}, _int(1, 7, FROM_OUTSIDE), _show(2, (1, 0)))
    return editor_file(_host(10, outer_values, OUTER), subgraphs=[middle, inner])


def _listed(*entries: list[str]) -> dict[str, Any]:
    return {"properties": {"proxyWidgets": list(entries)}}


def _blur(node_id: int, source: Source) -> Node:
    """A blur whose radius and sigma come from primitives."""
    inputs = {
        "image": ("IMAGE", source),
        "=blur_radius": (INT, (2, 0)),
        "=sigma": ("FLOAT", (3, 0)),
    }
    return node(node_id, "ImageBlur", inputs, "IMAGE", [3, 1.0])


def _two_ints() -> list[Node]:
    return [_int(1, 1, (-10, 0)), _int(2, 2, (-10, 1)), _show(3, (1, 0)), _show(4, (2, 0))]


TWO = {"a": INT, "b": INT}


def _linked_later_first() -> dict[str, Any]:
    """An input whose ``linkIds`` name the later link first."""
    file = _file(
        _host(10), inner=[_int(1, 7, FROM_OUTSIDE), _int(2, 8, FROM_OUTSIDE), _show(3, (1, 0))]
    )
    file["definitions"]["subgraphs"][0]["inputs"][0]["linkIds"].reverse()
    return file


def _same_ids() -> dict[str, Any]:
    """Two subgraphs, copied from each other, one of which holds an id of the outermost graph too."""
    inner = subgraph(PART, VALUE, {}, _int(1, 7, FROM_OUTSIDE), _show(2, (1, 0)))
    copied = subgraph(OUTER, VALUE, {}, _int(1, 8, FROM_OUTSIDE), _show(10, (1, 0)))
    return editor_file(
        _host(10, [5], **_listed(["1", "value"])),
        _host(11, [6], OUTER, **_listed(["1", "value"])),
        subgraphs=[inner, copied],
    )


# Its export differs from the one of older frontends.
PRIMITIVE_OUTSIDE = "a subgraph with a primitive outside"

FILES_033: dict[str, dict[str, Any]] = {
    PRIMITIVE_OUTSIDE: FILES[PRIMITIVE_OUTSIDE],
    "a host's value for a socket": _file(
        _host(10, [9]), inner=[_int(1, 7, FROM_OUTSIDE), _show(2, FROM_OUTSIDE), _show(3, (1, 0))]
    ),
    "a host without a value": _file(
        _host(10),
        inner=[
            _int(1, 7, FROM_OUTSIDE),
            _int(2, 8, FROM_OUTSIDE),
            _show(3, FROM_OUTSIDE),
            _show(4, (1, 0)),
            _show(5, (2, 0)),
        ],
    ),
    "the later link first": _linked_later_first(),
    "a socket before the widget": _file(
        _host(10), inner=[_show(2, FROM_OUTSIDE), _int(1, 7, FROM_OUTSIDE), _show(3, (1, 0))]
    ),
    "the first widget on a muted node": _file(
        _host(10),
        inner=[_int(1, 7, FROM_OUTSIDE, mode=MUTED), _int(2, 8, FROM_OUTSIDE), _show(3, (2, 0))],
    ),
    "the first widget on a bypassed node": _file(
        _host(10),
        inner=[_int(1, 7, FROM_OUTSIDE, mode=BYPASSED), _show(2, FROM_OUTSIDE), _show(3, (1, 0))],
    ),
    "a socket alone": _file(
        _host(10, [9]), inner=[_show(2, FROM_OUTSIDE), _int(1, 7), _show(3, (1, 0))]
    ),
    "two hosts with values of their own": _file(
        _host(10, [5]),
        _host(11),
        inner=[_int(1, 7, FROM_OUTSIDE), _show(2, FROM_OUTSIDE), _show(3, (1, 0))],
    ),
    "hosts in hosts without values": _nested([], []),
    "hosts in hosts, a value inside": _nested([], [5]),
    "hosts in hosts, a value outside": _nested([3], [5]),
    "hosts in hosts, shown to a socket": _nested([], [5], _show(21, FROM_OUTSIDE)),
    "a host fed by a muted node": _file(
        _int(9, 4, mode=MUTED),
        _host(10, [5], source=(9, 0)),
        inner=[_int(1, 7, FROM_OUTSIDE), _show(2, FROM_OUTSIDE), _show(3, (1, 0))],
    ),
    "a value behind a reroute inside": _file(
        _host(10, [5]),
        inner=[
            _int(1, 7, FROM_OUTSIDE),
            node(2, "Reroute", {"": ("*", FROM_OUTSIDE)}, "INT"),
            _show(3, (2, 0)),
            _show(4, (1, 0)),
        ],
    ),
    "values in the order of proxyWidgets": _file(
        node(
            10,
            PART,
            {"=a": (INT, None), "=b": (INT, None)},
            "",
            [20, 10],
            **_listed(["2", "value"], ["1", "value"]),
        ),
        inner=_two_ints(),
        inputs=TWO,
    ),
    "a listed widget that no input leads to": _file(
        node(10, PART, {}, "", [5], **_listed(["1", "value"])),
        node(11, PART, {}, "", [], **_listed(["1", "value"])),
        inner=[_int(1, 7), _show(2, (1, 0))],
        inputs={},
    ),
    "a listed widget by its old name": _file(
        node(10, PART, {}, "", [5], **_listed(["1", "1: value"])),
        inner=[_int(1, 7), _show(2, (1, 0))],
        inputs={},
    ),
    "a listed primitive inside": _file(
        node(10, PART, {}, "", [6], **_listed(["1", "value"])),
        inner=[
            node(
                1,
                "PrimitiveNode",
                {},
                INT,
                [5, "fixed"],
                properties={"Run widget replace on values": False},
            ),
            _int(2, 7, (1, 0)),
            _show(3, (2, 0)),
        ],
        inputs={},
    ),
    "a value that the frontend set aside": _file(
        _host(
            10,
            [5],
            properties={
                "proxyWidgetErrorQuarantine": [
                    {
                        "originalEntry": ["-1", "v"],
                        "reason": "missingSourceNode",
                        "attemptedAtVersion": 1,
                        "hostValue": 8,
                    }
                ]
            },
        ),
        inner=[_int(1, 7, FROM_OUTSIDE), _show(2, (1, 0))],
    ),
    "ids that two subgraphs share": _same_ids(),
    "a curve": editor_file(
        node(1, "CurveEditor", {"=curve": ("CURVE", None)}, "CURVE", [CURVE]), _show(2, (1, 0))
    ),
    "an old curve": editor_file(
        node(1, "CurveEditor", {"=curve": ("CURVE", None)}, "CURVE", [[[0, 0], [1, 1]]]),
        _show(2, (1, 0)),
    ),
    "a curve on a host": _file(
        node(10, PART, {"=v": ("CURVE", None)}, "", [CURVE]),
        inner=[
            node(1, "CurveEditor", {"=curve": ("CURVE", FROM_OUTSIDE)}, "CURVE", []),
            _show(2, (1, 0)),
        ],
        inputs={"v": "CURVE"},
    ),
    "a crop region": editor_file(
        node(1, "LoadImage", {}, "IMAGE MASK", ["example.png", "image"]),
        node(2, "ImageCropV2", {"image": ("IMAGE", (1, 0))}, "IMAGE", [BOX, 1, 2, 30, 40]),
        _show(3, (2, 0)),
    ),
    "boxes": editor_file(
        node(1, "CreateBoundingBoxes", {}, "BOUNDING_BOX", [512, 640, [BOX], [BOX]]),
        _show(2, (1, 0)),
    ),
    "a palette": editor_file(
        node(
            1,
            "BuildJsonPromptIdeogram",
            {},
            "STRING",
            ["a", "b", "none", "c", "d", "e", ["#ff0000", "#00ff00"]],
        ),
        _show(2, (1, 0)),
    ),
    "names that a class has no more": editor_file(
        node(1, "LoadVideo", {}, "VIDEO", ["clip.mp4", "image"]),
        node(
            2,
            "SaveVideo",
            {"video": ("VIDEO", (1, 0))},
            "",
            ["video/x", "auto", "auto"],
            widgets_values_named={"filename_prefix": "video/x", "format": "auto", "codec": "auto"},
        ),
    ),
    "an expression's values from a host": _file(
        node(10, PART, {"=v": (INT, None)}, "", []),
        inner=[
            _int(1, 81, FROM_OUTSIDE),
            node(
                2,
                "ComfyMathExpression",
                {
                    "values.a": ("FLOAT,INT,BOOLEAN", (1, 0)),
                    "values.b": ("FLOAT,INT,BOOLEAN", FROM_OUTSIDE),
                },
                "FLOAT INT",
                ["a + b"],
            ),
            _show(3, (2, 1)),
        ],
    ),
    "a size of a dynamic choice on a host": _file(
        node(9, "LoadImage", {}, "IMAGE MASK", ["example.png", "image"]),
        node(10, PART, {"image": ("IMAGE", (9, 0)), "=v": (INT, None)}, "", [300]),
        inner=[
            node(
                1,
                "ResizeImageMaskNode",
                {"input": ("IMAGE", (-10, 0)), "=resize_type.width": (INT, (-10, 1))},
                "IMAGE",
                ["scale dimensions", 512, 256, "center", "area"],
            ),
            _show(2, (1, 0)),
        ],
        inputs={"image": "IMAGE", "v": INT},
    ),
    "values that an old file lacks": editor_file(
        node(1, "LoadImage", {}, "IMAGE MASK", ["example.png", "image"]),
        node(2, "ResizeImageMaskNode", {"input": ("IMAGE", (1, 0))}, "IMAGE", ["scale dimensions"]),
        node(3, "SaveImageAdvanced", {"images": ("IMAGE", (2, 0))}, "", ["x"]),
        node(4, "PrimitiveInt", {}, INT, []),
        _show(5, (4, 0)),
    ),
    "primitives out of range": editor_file(
        node(1, "LoadImage", {}, "IMAGE MASK", ["example.png", "image"]),
        node(2, "PrimitiveNode", {}, INT, [9000, "fixed"]),
        node(3, "PrimitiveNode", {}, "FLOAT", [-3, "fixed"]),
        _blur(4, (1, 0)),
        _blur(5, (4, 0)),
        node(6, "SaveImage", {"images": ("IMAGE", (5, 0))}, "", ["x"]),
    ),
}
"""By mechanism, a file."""


def main() -> None:
    """Record the frontend's exports, and the declarations of the classes that the files use."""
    from tests.frontend import open_frontend, running_comfyui

    with running_comfyui(comfyui_dir(os.environ)) as url, open_frontend(url) as frontend:
        exports = {name: frontend.graph_to_prompt(file) for name, file in FILES_033.items()}
        with urllib.request.urlopen(f"{url}/object_info") as answer:
            declared = json.load(answer)
    classes = {entry["class_type"] for export in exports.values() for entry in export.values()}
    recorded = {
        "object_info": {name: declared[name] for name in sorted(classes)},
        "exports": exports,
    }
    RECORDED_033.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
