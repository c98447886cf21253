"""Workflows in UI format, written by hand, one for each way in which it differs from the API format.

Only ComfyUI's own frontend can say what each exports; a browser test asks it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FILES", "Node", "editor_file", "node", "subgraph"]

Node = dict[str, Any]
Source = tuple[int, int]

MUTED, BYPASSED = 2, 4
INPUT_NODE, OUTPUT_NODE = -10, -20


def node(
    node_id: int,
    node_type: str,
    inputs: Mapping[str, tuple[str, Source | None]] | None = None,
    outputs: str = "",
    widgets: Sequence[Any] | None = None,
    **more: Any,
) -> Node:
    """One node.

    Args:
        node_id: unique in its graph.
        node_type: the class, or a subgraph's id.
        inputs: by name the type and the output that it is linked to; a name after ``=`` is a widget's.
        outputs: their types, with blanks between.
        widgets: ``widgets_values``.
        more: ``mode``, ``title``, ``properties`` ...
    """
    return {
        "id": node_id,
        "type": node_type,
        "pos": [40 * node_id, 0],
        "size": [200, 100],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {"name": name.lstrip("="), "type": slot_type, "link": source}
            | ({"widget": {"name": name[1:]}} if name.startswith("=") else {})
            for name, (slot_type, source) in (inputs or {}).items()
        ],
        "outputs": [
            {"name": slot_type, "type": slot_type, "links": []} for slot_type in outputs.split()
        ],
        "properties": {},
        **({} if widgets is None else {"widgets_values": list(widgets)}),
        **more,
    }


def editor_file(*nodes: Node, subgraphs: Sequence[Node] = ()) -> dict[str, Any]:
    """A file as the editor saves it."""
    links = [[entry["id"], *entry["from"], *entry["to"], entry["type"]] for entry in _link(nodes)]
    file = {
        "last_node_id": 99,
        "last_link_id": 99,
        "nodes": list(nodes),
        "links": links,
        "groups": [],
    }
    return {
        **file,
        "config": {},
        "extra": {},
        "version": 0.4,
        "definitions": {"subgraphs": list(subgraphs)},
    }


def subgraph(
    graph_id: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, tuple[str, Source]],
    *nodes: Node,
) -> Node:
    """A subgraph's definition.

    Args:
        graph_id: a UUID.
        inputs: their types by name; the nodes inside take them from node -10.
        outputs: by name the type and what gives it.
        nodes: what is inside.
    """
    end = node(OUTPUT_NODE, "", outputs)
    links = _link([*nodes, end])
    ends = {"in": [entry for entry in links if entry["from"][0] == INPUT_NODE], "out": links}
    io = {"bounding": [0, 0, 100, 100]}
    return {
        "id": graph_id,
        "version": 1,
        "revision": 0,
        "state": {"lastGroupId": 0, "lastNodeId": 99, "lastLinkId": 99, "lastRerouteId": 0},
        "config": {},
        "name": "part",
        "inputNode": {"id": INPUT_NODE, **io},
        "outputNode": {"id": OUTPUT_NODE, **io},
        "inputs": [
            {
                "id": _uuid(graph_id, name),
                "name": name,
                "type": slot_type,
                "linkIds": [entry["id"] for entry in ends["in"] if entry["from"][1] == slot],
                "pos": [0, 0],
            }
            for slot, (name, slot_type) in enumerate(inputs.items())
        ],
        "outputs": [
            {
                "id": _uuid(graph_id, name + " out"),
                "name": name,
                "type": slot_type,
                "linkIds": [entry["id"] for entry in links if entry["to"] == (OUTPUT_NODE, slot)],
                "pos": [0, 0],
            }
            for slot, (name, (slot_type, _)) in enumerate(outputs.items())
        ],
        "widgets": [],
        "nodes": list(nodes),
        "groups": [],
        "links": [
            {
                "id": entry["id"],
                "origin_id": entry["from"][0],
                "origin_slot": entry["from"][1],
                "target_id": entry["to"][0],
                "target_slot": entry["to"][1],
                "type": entry["type"],
            }
            for entry in links
        ],
        "extra": {},
    }


def _uuid(*words: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(words)))


def _link(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Number the links of one graph, in its nodes and in a list."""
    links: list[dict[str, Any]] = []
    by_id = {entry["id"]: entry for entry in nodes}
    for target in nodes:
        for slot, entry in enumerate(target["inputs"]):
            if (source := entry["link"]) is None:
                continue
            entry["link"] = len(links) + 1
            links.append(
                {
                    "id": entry["link"],
                    "from": source,
                    "to": (target["id"], slot),
                    "type": entry["type"],
                }
            )
            if source[0] in by_id:
                by_id[source[0]]["outputs"][source[1]]["links"].append(entry["link"])
    return links


IMAGE, MASK, LATENT, MODEL, CLIP = "IMAGE", "MASK", "LATENT", "MODEL", "CLIP"
VAE, CONDITIONING, INT, STRING = "VAE", "CONDITIONING", "INT", "STRING"
KSAMPLER = [7, "randomize", 20, 8, "euler", "normal", 1]
PART, OUTER, DEEP = (_uuid(word) for word in ("part", "outer", "deep"))


def _load(node_id: int, **more: Any) -> Node:
    return node(node_id, "LoadImage", {}, "IMAGE MASK", ["example.png", "image"], **more)


def _save(node_id: int, source: Source, **more: Any) -> Node:
    return node(node_id, "SaveImage", {"images": (IMAGE, source)}, "", ["ComfyUI"], **more)


def _invert(node_id: int, source: Source | None, **more: Any) -> Node:
    return node(node_id, "ImageInvert", {"image": (IMAGE, source)}, "IMAGE", **more)


def _blur(node_id: int, source: Source | None, *widgets: Any, **more: Any) -> Node:
    return node(
        node_id, "ImageBlur", {"image": (IMAGE, source)}, "IMAGE", widgets or [1, 1.0], **more
    )


def _checkpoint(node_id: int) -> Node:
    return node(node_id, "CheckpointLoaderSimple", {}, "MODEL CLIP VAE", ["model.safetensors"])


def _lora(node_id: int, model: Source, clip: Source, **more: Any) -> Node:
    return node(
        node_id,
        "LoraLoader",
        {"model": (MODEL, model), "clip": (CLIP, clip)},
        "MODEL CLIP",
        ["a.safetensors", 1, 1],
        **more,
    )


def _text(node_id: int, clip: Source, text: str, **more: Any) -> Node:
    return node(node_id, "CLIPTextEncode", {"clip": (CLIP, clip)}, "CONDITIONING", [text], **more)


def _sampled(model: Source, clip: Source) -> list[Node]:
    """The rest of a text-to-image graph, ids 10 to 15."""
    return [
        _text(10, clip, "a cat"),
        _text(11, clip, "blurry"),
        node(12, "EmptyLatentImage", {}, "LATENT", [64, 64, 1]),
        node(
            13,
            "KSampler",
            {
                "model": (MODEL, model),
                "positive": (CONDITIONING, (10, 0)),
                "negative": (CONDITIONING, (11, 0)),
                "latent_image": (LATENT, (12, 0)),
            },
            "LATENT",
            KSAMPLER,
        ),
        node(14, "VAEDecode", {"samples": (LATENT, (13, 0)), "vae": (VAE, (1, 2))}, "IMAGE"),
        _save(15, (14, 0)),
    ]


def _reroute(node_id: int, source: Source | None, slot_type: str = "*") -> Node:
    return node(node_id, "Reroute", {"": ("*", source)}, slot_type)


def _primitive(node_id: int, slot_type: str, *widgets: Any, **more: Any) -> Node:
    return node(node_id, "PrimitiveNode", {}, slot_type, widgets, **more)


def _blur_part(graph_id: str = PART, *, mode: int = 0, all_mode: int = 0) -> Node:
    """A subgraph that blurs; its second input is the blur's radius."""
    blur = node(
        5,
        "ImageBlur",
        {"image": (IMAGE, (-10, 0)), "=blur_radius": (INT, (-10, 1))},
        "IMAGE",
        [3, 1.0],
        mode=mode or all_mode,
    )
    return subgraph(
        graph_id,
        {"image": IMAGE, "blur_radius": INT},
        {"IMAGE": (IMAGE, (6, 0))},
        blur,
        _invert(6, (5, 0), mode=all_mode),
    )


def _use(
    node_id: int,
    source: Source | None,
    node_type: str = PART,
    radius: Source | None = None,
    **more: Any,
) -> Node:
    inputs = {"image": (IMAGE, source), "=blur_radius": (INT, radius)}
    return node(node_id, node_type, inputs, "IMAGE", **{"widgets_values": [], **more})


def _sampled_by(widgets: list[Any]) -> dict[str, Any]:
    """Text to image, with these values in the sampler."""
    return editor_file(
        _checkpoint(1),
        *(
            {**entry, "widgets_values": widgets} if entry["id"] == 13 else entry
            for entry in _sampled((1, 0), (1, 1))
        ),
    )


def _text_part(widgets: list[Any]) -> dict[str, Any]:
    """A subgraph that shows its text, with these values outside."""
    inputs = {"clip": (CLIP, (-10, 0)), "=text": (STRING, (-10, 1))}
    text = node(4, "CLIPTextEncode", inputs, "CONDITIONING", ["{c|c} // d"])
    return editor_file(
        _checkpoint(1),
        node(2, PART, {"clip": (CLIP, (1, 1)), "=text": (STRING, None)}, "CONDITIONING", widgets),
        node(3, "PreviewAny", {"source": ("*", (2, 0))}, "", []),
        subgraphs=[
            subgraph(
                PART, {"clip": CLIP, "text": STRING}, {"CONDITIONING": (CONDITIONING, (4, 0))}, text
            )
        ],
    )


FILES: dict[str, dict[str, Any]] = {
    "plain": editor_file(_checkpoint(1), *_sampled((1, 0), (1, 1))),
    "a LoRA bypassed": editor_file(
        _checkpoint(1), _lora(2, (1, 0), (1, 1), mode=BYPASSED), *_sampled((2, 0), (2, 1))
    ),
    "two LoRAs bypassed": editor_file(
        _checkpoint(1),
        _lora(2, (1, 0), (1, 1), mode=BYPASSED),
        _lora(3, (2, 0), (2, 1), mode=BYPASSED),
        *_sampled((3, 0), (3, 1)),
    ),
    "one LoRA of two bypassed": editor_file(
        _checkpoint(1),
        _lora(2, (1, 0), (1, 1)),
        _lora(3, (2, 0), (2, 1), mode=BYPASSED),
        *_sampled((3, 0), (3, 1)),
    ),
    "a bypassed node that has nothing to pass on": editor_file(
        _load(1),
        node(2, "CLIPVisionLoader", {}, "CLIP_VISION", ["v.safetensors"]),
        node(
            3,
            "CLIPVisionEncode",
            {"clip_vision": ("CLIP_VISION", (2, 0)), "image": (IMAGE, (1, 0))},
            "CLIP_VISION_OUTPUT",
            ["center"],
            mode=BYPASSED,
        ),
        node(
            4,
            "Hunyuan3Dv2ConditioningMultiView",
            {"front": ("CLIP_VISION_OUTPUT", (3, 0)), "left": ("CLIP_VISION_OUTPUT", None)},
            "CONDITIONING CONDITIONING",
        ),
        _save(5, (1, 0)),
    ),
    "a bypassed node that takes the wrong type": editor_file(
        _load(1),
        node(2, "MaskToImage", {"mask": (MASK, (1, 1))}, "IMAGE", mode=BYPASSED),
        _save(3, (2, 0)),
        _save(4, (1, 0)),
    ),
    "a bypassed node whose first input of the type is not linked": editor_file(
        _load(1),
        node(
            2,
            "ImageBatch",
            {"image1": (IMAGE, None), "image2": (IMAGE, (1, 0))},
            "IMAGE",
            mode=BYPASSED,
        ),
        _save(3, (2, 0)),
        _save(4, (1, 0)),
    ),
    "a bypassed node into any type": editor_file(
        _load(1),
        node(2, "ImageToMask", {"image": (IMAGE, (1, 0))}, "MASK", ["red"], mode=BYPASSED),
        node(3, "PreviewAny", {"source": ("*", (2, 0))}, "", []),
        _save(4, (1, 0)),
    ),
    "a muted node into an optional input": editor_file(
        _load(1),
        _load(2, mode=MUTED),
        node(
            3,
            "ImageStitch",
            {"image1": (IMAGE, (1, 0)), "image2": (IMAGE, (2, 0))},
            "IMAGE",
            ["right", True, 0, "white"],
        ),
        _save(4, (3, 0)),
    ),
    "a muted node into a required input": editor_file(
        _load(1, mode=MUTED), _invert(2, (1, 0)), _save(3, (2, 0)), _load(4), _save(5, (4, 0))
    ),
    "a muted output": editor_file(_load(1), _save(2, (1, 0), mode=MUTED), _save(3, (1, 0))),
    "a muted node behind a bypassed one": editor_file(
        _load(1, mode=MUTED),
        _invert(2, (1, 0), mode=BYPASSED),
        _save(3, (2, 0)),
        _load(4),
        _save(5, (4, 0)),
    ),
    "reroutes in a row": editor_file(
        _load(1), _reroute(2, (1, 0)), _reroute(3, (2, 0), IMAGE), _save(4, (3, 0))
    ),
    "a reroute from nowhere": editor_file(
        _reroute(1, None), _save(2, (1, 0)), _load(3), _save(4, (3, 0))
    ),
    "a reroute behind a bypassed node": editor_file(
        _load(1), _invert(2, (1, 0), mode=BYPASSED), _reroute(3, (2, 0)), _save(4, (3, 0))
    ),
    "a bypassed node behind a reroute": editor_file(
        _load(1), _reroute(2, (1, 0), IMAGE), _invert(3, (2, 0), mode=BYPASSED), _save(4, (3, 0))
    ),
    "a primitive": editor_file(
        _primitive(1, INT, 5, "fixed"),
        _load(2),
        node(
            3,
            "ImageBlur",
            {"image": (IMAGE, (2, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        _save(4, (3, 0)),
    ),
    "a primitive for two": editor_file(
        _primitive(1, INT, 5, "increment"),
        _load(3),
        node(
            4,
            "ImageBlur",
            {"image": (IMAGE, (3, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        node(
            5,
            "ImageBlur",
            {"image": (IMAGE, (4, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        _save(6, (5, 0)),
    ),
    "a primitive bypassed, and one muted": editor_file(
        _primitive(1, INT, 5, "fixed", mode=BYPASSED),
        _primitive(2, INT, 6, "fixed", mode=MUTED),
        _load(3),
        node(
            4,
            "ImageBlur",
            {"image": (IMAGE, (3, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        node(
            5,
            "ImageBlur",
            {"image": (IMAGE, (4, 0)), "=blur_radius": (INT, (2, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        _save(6, (5, 0)),
    ),
    "a reroute muted, and one bypassed": editor_file(
        _load(1),
        {**_reroute(2, (1, 0), IMAGE), "mode": MUTED},
        {**_reroute(3, (2, 0), IMAGE), "mode": BYPASSED},
        _save(4, (3, 0)),
    ),
    "a primitive text": editor_file(
        _primitive(1, STRING, "a dog"),
        _checkpoint(2),
        node(
            3,
            "CLIPTextEncode",
            {"clip": (CLIP, (2, 1)), "=text": (STRING, (1, 0))},
            "CONDITIONING",
            ["a cat"],
        ),
        _load(4),
        _save(5, (4, 0)),
    ),
    "a node for a widget": editor_file(
        node(1, "PrimitiveInt", {}, "INT", [9, "fixed"]),
        _load(2),
        node(
            3,
            "ImageBlur",
            {"image": (IMAGE, (2, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        _save(4, (3, 0)),
    ),
    "a muted node for a widget": editor_file(
        node(1, "PrimitiveInt", {}, "INT", [9, "fixed"], mode=MUTED),
        _load(2),
        node(
            3,
            "ImageBlur",
            {"image": (IMAGE, (2, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [4, 2.0],
        ),
        _save(4, (3, 0)),
    ),
    "a bypassed node for a widget": editor_file(
        node(1, "PrimitiveInt", {}, "INT", [9, "fixed"], mode=BYPASSED),
        _load(2),
        node(
            3,
            "ImageBlur",
            {"image": (IMAGE, (2, 0)), "=blur_radius": (INT, (1, 0))},
            "IMAGE",
            [4, 2.0],
        ),
        _save(4, (3, 0)),
    ),
    "notes": editor_file(
        node(1, "Note", {}, "", ["remember"]),
        node(2, "MarkdownNote", {}, "", ["# remember"]),
        _load(3),
        _save(4, (3, 0), title="The End"),
    ),
    "a node that nothing needs": editor_file(_load(1), _invert(2, (1, 0)), _save(3, (1, 0))),
    "prompt comments and escapes": editor_file(
        _checkpoint(1),
        _text(2, (1, 1), "a /* big */ cat \\{x\\|y\\} // end"),
        _load(3),
        _save(4, (3, 0)),
    ),
    "values missing": editor_file(
        _load(1), node(2, "ImageBlur", {"image": (IMAGE, (1, 0))}, "IMAGE", [4]), _save(3, (2, 0))
    ),
    "no values": editor_file(
        _load(1), node(2, "ImageBlur", {"image": (IMAGE, (1, 0))}, "IMAGE"), _save(3, (2, 0))
    ),
    "a subgraph": editor_file(
        _load(1), _use(2, (1, 0)), _save(3, (2, 0)), subgraphs=[_blur_part()]
    ),
    "a subgraph twice": editor_file(
        _load(1), _use(2, (1, 0)), _use(3, (2, 0)), _save(4, (3, 0)), subgraphs=[_blur_part()]
    ),
    "a subgraph with a value from outside": editor_file(
        _load(1),
        node(9, "PrimitiveInt", {}, "INT", [9, "fixed"]),
        _use(2, (1, 0), radius=(9, 0)),
        _save(3, (2, 0)),
        subgraphs=[_blur_part()],
    ),
    "a subgraph with a primitive outside": editor_file(
        _load(1),
        _primitive(9, INT, 8, "fixed"),
        _use(2, (1, 0), radius=(9, 0)),
        _save(3, (2, 0)),
        subgraphs=[_blur_part()],
    ),
    "a subgraph with its widget shown outside": editor_file(
        _load(1),
        _use(2, (1, 0), properties={"proxyWidgets": [["5", "sigma"], ["5", "blur_radius"]]}),
        _save(3, (2, 0)),
        subgraphs=[_blur_part()],
    ),
    "a subgraph bypassed": editor_file(
        _load(1),
        _use(2, (1, 0), mode=BYPASSED),
        _save(3, (2, 0)),
        subgraphs=[_blur_part(all_mode=BYPASSED)],
    ),
    "a subgraph muted": editor_file(
        _load(1),
        _use(2, (1, 0), mode=MUTED),
        _save(3, (2, 0)),
        _save(4, (1, 0)),
        subgraphs=[_blur_part(all_mode=MUTED)],
    ),
    "a subgraph twice, each with a value of its own": editor_file(
        _load(1),
        _use(2, (1, 0), widgets_values=[7]),
        _use(3, (2, 0), widgets_values=[9]),
        _save(4, (3, 0)),
        subgraphs=[_blur_part()],
    ),
    "a node bypassed in a subgraph": editor_file(
        _load(1), _use(2, (1, 0)), _save(3, (2, 0)), subgraphs=[_blur_part(mode=BYPASSED)]
    ),
    "a node muted in a subgraph": editor_file(
        _load(1),
        _use(2, (1, 0)),
        _save(3, (2, 0)),
        _save(4, (1, 0)),
        subgraphs=[_blur_part(mode=MUTED)],
    ),
    "a subgraph with all of it bypassed": editor_file(
        _load(1),
        _use(2, (1, 0)),
        _save(3, (2, 0)),
        subgraphs=[
            subgraph(
                PART,
                {"image": IMAGE, "blur_radius": INT},
                {"IMAGE": (IMAGE, (5, 0))},
                _invert(5, (-10, 0), mode=BYPASSED),
            )
        ],
    ),
    "a subgraph with an input that nothing feeds": editor_file(
        _use(2, None), _save(3, (2, 0)), _load(14), _save(15, (14, 0)), subgraphs=[_blur_part()]
    ),
    "reroutes in a subgraph": editor_file(
        _load(1),
        _use(2, (1, 0)),
        _save(3, (2, 0)),
        subgraphs=[
            subgraph(
                PART,
                {"image": IMAGE, "blur_radius": INT},
                {"IMAGE": (IMAGE, (7, 0))},
                _reroute(5, (-10, 0), IMAGE),
                _invert(6, (5, 0)),
                _reroute(7, (6, 0), IMAGE),
            )
        ],
    ),
    "subgraphs in subgraphs": editor_file(
        _load(1),
        _use(2, (1, 0), OUTER),
        _use(3, (2, 0), OUTER),
        _save(4, (3, 0)),
        subgraphs=[
            subgraph(
                OUTER,
                {"image": IMAGE, "blur_radius": INT},
                {"IMAGE": (IMAGE, (9, 0))},
                _use(8, (-10, 0), DEEP),
                _use(9, (8, 0), DEEP, radius=(-10, 1)),
            ),
            subgraph(
                DEEP,
                {"image": IMAGE, "blur_radius": INT},
                {"IMAGE": (IMAGE, (7, 0))},
                _use(7, (-10, 0), radius=(-10, 1)),
            ),
            _blur_part(),
        ],
    ),
    "a reroute between subgraphs": editor_file(
        _load(1),
        _use(2, (1, 0)),
        _reroute(8, (2, 0), IMAGE),
        _use(3, (8, 0)),
        _save(4, (3, 0)),
        subgraphs=[_blur_part()],
    ),
    "a subgraph behind a bypassed node": editor_file(
        _load(1),
        _invert(8, (1, 0), mode=BYPASSED),
        _use(2, (8, 0)),
        _save(3, (2, 0)),
        subgraphs=[_blur_part()],
    ),
    "an input of a class with no widget": editor_file(
        node(1, "RecordAudio", {}, "AUDIO", [""]),
        node(2, "PreviewAudio", {"audio": ("AUDIO", (1, 0))}, "", []),
    ),
    "an old file, whose seed is fixed by yes or no": _sampled_by(
        [7, True, 20, 8, "euler", "normal", 1]
    ),
    "a seed with a way to go on that is not known": _sampled_by(
        [7, "backwards", 20, 8, "euler", "normal", 1]
    ),
    "an object for a value": _sampled_by([7, "fixed", 20, 8, {"euler": 1}, "normal", 1]),
    "an object for a button": editor_file(
        node(1, "LoadImage", {}, "IMAGE MASK", ["other.png", {"name": "upload", "type": "button"}]),
        _save(2, (1, 0)),
    ),
    "an old file, with a value for an input that takes none": editor_file(
        node(
            1,
            "StabilityStableImageUltraNode",
            {},
            "IMAGE",
            ["p", "1:1", "None", 5, "fixed", "not this", 0.7],
        ),
        _save(2, (1, 0)),
    ),
    "a class by its old name": editor_file(
        _checkpoint(1),
        _text(2, (1, 1), "a"),
        _text(3, (1, 1), "b"),
        node(
            4,
            "ConditioningAverage ",
            {
                "conditioning_to": (CONDITIONING, (2, 0)),
                "conditioning_from": (CONDITIONING, (3, 0)),
            },
            "CONDITIONING",
            [0.7],
        ),
        node(5, "PreviewAny", {"source": ("*", (4, 0))}, "", []),
    ),
    "a primitive behind a reroute": editor_file(
        _primitive(1, INT, 5, "fixed"),
        _reroute(5, (1, 0), INT),
        _load(2),
        node(
            3,
            "ImageBlur",
            {"image": (IMAGE, (2, 0)), "=blur_radius": (INT, (5, 0))},
            "IMAGE",
            [1, 2.0],
        ),
        _save(4, (3, 0)),
    ),
    "a primitive in a subgraph": editor_file(
        _load(1),
        _use(2, (1, 0)),
        _save(3, (2, 0)),
        subgraphs=[
            subgraph(
                PART,
                {"image": IMAGE, "blur_radius": INT},
                {"IMAGE": (IMAGE, (5, 0))},
                _primitive(4, INT, 5, "fixed"),
                node(
                    5,
                    "ImageBlur",
                    {"image": (IMAGE, (-10, 0)), "=blur_radius": (INT, (4, 0))},
                    "IMAGE",
                    [1, 2.0],
                ),
            )
        ],
    ),
    "a subgraph that lists its values": editor_file(
        _load(1),
        _use(
            2,
            (1, 0),
            widgets_values=[None, 9],
            properties={"proxyWidgets": [["5", "sigma"], ["-1", "blur_radius"]]},
        ),
        _save(3, (2, 0)),
        subgraphs=[_blur_part()],
    ),
    "a subgraph that lists its values, but has none": editor_file(
        _load(1),
        _use(2, (1, 0), widgets_values=[], properties={"proxyWidgets": [["-1", "blur_radius"]]}),
        _save(3, (2, 0)),
        subgraphs=[_blur_part()],
    ),
    "a text shown outside of a subgraph": _text_part([]),
    "a text set outside of a subgraph": _text_part(["{a|a} // b"]),
}
