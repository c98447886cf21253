"""The editor's format becomes what the frontend's own export makes of it; what cannot is an error, soon."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from comfy_common.paths import REPO
from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.to_api import read_workflow, resolve_variants
from comfy_worker.workflow.convert.ui_format import MAX_DEPTH
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.parse import MAX_NODES
from tests.editor_files import FILES, Node, editor_file, node, subgraph
from tests.editor_files_033 import FILES_033, RECORDED_033
from tests.official_templates import COMFYUI_033, COMFYUI_0375

MADE_BY_THE_FRONTEND = json.loads(
    Path(__file__).with_name("editor_files.json").read_text(encoding="utf-8")
)
DEFS = NodeDefs(MADE_BY_THE_FRONTEND["object_info"])
MADE_033 = json.loads(RECORDED_033.read_text(encoding="utf-8"))
DEFS_033 = NodeDefs(MADE_033["object_info"])


def read(file: Any, defs: NodeDefs = DEFS, seed: int = 0) -> Workflow:
    found = read_workflow(file, defs)
    resolve_variants(found.workflow, found.variants, seed)
    return found.workflow


def declared(workflow: Workflow, defs: NodeDefs) -> dict[str, Any]:
    """A graph without titles, and without the inputs that a class does not declare."""
    return {
        node_id: (
            entry["class_type"],
            {
                name: value
                for name, value in entry["inputs"].items()
                if name.split(".")[0] in defs[entry["class_type"]].inputs
            },
        )
        for node_id, entry in workflow.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_what_the_frontend_exports(name: str) -> None:
    file = copy.deepcopy(FILES[name])
    assert declared(read(file), DEFS) == declared(MADE_BY_THE_FRONTEND["exports"][name], DEFS)
    assert file == FILES[name]


@pytest.mark.parametrize("name", FILES_033)
def test_a_file_of_today_becomes_its_export(name: str) -> None:
    file = copy.deepcopy(FILES_033[name])
    assert declared(read(file, DEFS_033), DEFS_033) == declared(MADE_033["exports"][name], DEFS_033)
    assert file == FILES_033[name]


def test_empty_values_on_a_host_are_ignored() -> None:
    file = copy.deepcopy(FILES_033["a host without a value"])
    file["nodes"][0]["widgets_values"] = [None]
    assert read(file, DEFS_033) == read(FILES_033["a host without a value"], DEFS_033)


def test_a_host_may_name_its_values() -> None:
    file = copy.deepcopy(FILES_033["a host's value for a socket"])
    del file["nodes"][0]["widgets_values"]
    file["nodes"][0]["widgets_values_named"] = {"v": 9}
    assert read(file, DEFS_033) == read(FILES_033["a host's value for a socket"], DEFS_033)


def test_older_comfyui_leaves_ids_as_they_are() -> None:
    old = NodeDefs({"PrimitiveInt": {"input": {}, "output": ["INT"]}})
    file = FILES_033["ids that two subgraphs share"]
    assert read(file, old).keys() == {"10:1", "10:2", "11:1", "11:10"}


def test_official_templates_of_0375_become_their_exports() -> None:
    defs = NodeDefs(COMFYUI_0375.object_info)
    files = dict(COMFYUI_0375.editor_files())
    assert len(files) == 95
    for name, file in files.items():
        assert declared(read(file, defs), defs) == declared(COMFYUI_0375.exports[name], defs), name


def test_official_templates_of_033_become_their_exports() -> None:
    defs = NodeDefs(COMFYUI_033.object_info)
    files = dict(COMFYUI_033.editor_files())
    assert len(files) == 115
    for name, file in files.items():
        export = COMFYUI_033.exports[name]
        assert with_outputs_only(read(file, defs), defs) == with_outputs_only(export, defs), name


# Widgets of the browser, which a file may lack.
OF_THE_BROWSER = {
    ("ImageCompare", "compare_view"),
    ("SaveVideo", "codec"),
    ("SaveVideo", "format.codec.encoding"),
}


def with_outputs_only(workflow: Workflow, defs: NodeDefs) -> dict[str, Any]:
    """What a graph's outputs need, without inputs that are empty or at their default."""
    wanted = [node_id for node_id, entry in workflow.items() if defs[entry["class_type"]].is_output]
    found: dict[str, Any] = {}
    while wanted:
        node_id = wanted.pop()
        if node_id in found or node_id not in workflow:
            continue
        class_type = workflow[node_id]["class_type"]
        specs = defs[class_type].inputs
        kept: dict[str, Any] = {}
        for name, value in workflow[node_id]["inputs"].items():
            spec = specs.get(name.split(".")[0])
            if spec is None or (class_type, name) in OF_THE_BROWSER:
                continue
            if isinstance(value, list):
                wanted.append(value[0])
            if value not in ("", spec.options.get("default")) or name != spec.name:
                kept[name] = value
        found[node_id] = (class_type, kept)
    return found


def test_titles_come_from_the_file_or_class() -> None:
    workflow = read(FILES["notes"])
    assert {node_id: entry["_meta"]["title"] for node_id, entry in workflow.items()} == {
        "3": "Load Image",
        "4": "The End",
    }


def test_links_may_be_objects_and_ids_text() -> None:
    file = copy.deepcopy(FILES["reroutes in a row"])
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    file["links"] = [dict(zip(keys, link, strict=True)) for link in file["links"]]
    assert read(file) == read(FILES["reroutes in a row"])


def test_get_and_set_nodes_pass_on() -> None:
    save = node(4, "SaveImage", {"images": ("IMAGE", (3, 0))}, "", ["x"])
    file = editor_file(
        node(1, "LoadImage", {}, "IMAGE MASK", ["a.png", "image"]),
        node(2, "SetNode", {"IMAGE": ("IMAGE", (1, 0))}, "IMAGE", ["picture"]),
        node(3, "GetNode", {}, "IMAGE", ["picture"]),
        save,
    )
    assert read(file)["4"]["inputs"]["images"] == ["1", 0]
    file["nodes"][2]["widgets_values"] = ["another"]
    assert "images" not in read(file)["4"]["inputs"]


def text_file(text: str) -> dict[str, Any]:
    return editor_file(node(1, "CLIPTextEncode", {"clip": ("CLIP", None)}, "CONDITIONING", [text]))


def test_variants_are_chosen_by_the_seed() -> None:
    file = text_file("a {red|blue|{dark|light} green} cat {x")
    texts = [read(file, seed=seed)["1"]["inputs"]["text"] for seed in range(40)]
    assert texts == [read(file, seed=seed)["1"]["inputs"]["text"] for seed in range(40)]
    assert set(texts) == {
        f"a {colour} cat x" for colour in ("red", "blue", "dark green", "light green")
    }


def test_only_inputs_that_say_so_hold_variants() -> None:
    file = editor_file(node(1, "SaveImage", {"images": ("IMAGE", None)}, "", ["{a|b}"]))
    assert read_workflow(file, DEFS).variants == ()
    assert read(file)["1"]["inputs"]["filename_prefix"] == "{a|b}"
    assert read_workflow(text_file("x"), DEFS).variants == (Input("1", "text"),)


def test_needs_and_packs_are_read() -> None:
    model = {"name": "a.safetensors", "url": "https://host/a.safetensors", "directory": "loras"}
    file = editor_file(
        node(
            1,
            "LoraLoader",
            {},
            "MODEL CLIP",
            ["a.safetensors", 1, 1],
            properties={"models": [model, {"name": "b"}]},
        ),
        node(2, "FaceSwap", {}, "", [3], properties={"cnr_id": "comfyui-face"}),
        node(3, "Blend", {}, "", [], properties={"aux_id": "someone/blend"}),
        node(4, "LoraLoader", {}, "", [], properties={"cnr_id": "comfy-core"}),
    )
    found = read_workflow(file, DEFS)
    assert found.needs == (ModelFile("loras", "a.safetensors", "https://host/a.safetensors"),)
    assert found.packs == {"FaceSwap": "comfyui-face", "Blend": "someone/blend"}
    assert [entry["class_type"] for entry in found.workflow.values()] == [
        "LoraLoader",
        "FaceSwap",
        "Blend",
        "LoraLoader",
    ]


def test_classes_that_comfy_cli_drops_are_kept() -> None:
    defs = NodeDefs({"LoadImageOutput": MADE_BY_THE_FRONTEND["object_info"]["LoadImage"]})
    file = editor_file(node(1, "LoadImageOutput", {}, "IMAGE MASK", ["a.png", "image"]))
    assert read(file, defs)["1"]["inputs"]["image"] == "a.png"


PART = "11111111-2222-3333-4444-555555555555"
OTHER = "11111111-2222-3333-4444-666666666666"


def nested(depth: int, width: int = 1) -> dict[str, Any]:
    """Subgraphs in subgraphs, each holding the next as often as ``width`` says."""
    ids = [f"11111111-2222-3333-4444-{number:012}" for number in range(depth)]
    load = node(1, "LoadImage", {}, "IMAGE MASK", ["a.png", "image"])
    definitions = [
        subgraph(graph_id, {}, {}, *(node(number, inner) for number in range(width)))
        for graph_id, inner in itertools.pairwise(ids)
    ]
    definitions.append(subgraph(ids[-1], {}, {}, node(1, "Note")))
    return editor_file(load, node(2, ids[0]), subgraphs=definitions)


def shown_through(depth: int, inputs: int) -> dict[str, Any]:
    """Subgraphs in subgraphs, which hand their inputs down side by side to a node that has no widget for them."""
    ids = [f"11111111-2222-3333-4444-{number:012}" for number in range(depth)]
    names = [f"input {number}" for number in range(inputs)]
    held = {f"={name}": ("INT", (-10, slot)) for slot, name in enumerate(names)}
    definitions = [
        subgraph(graph_id, dict.fromkeys(names, "INT"), {}, node(1, inner, held, "", []))
        for graph_id, inner in zip(ids, [*ids[1:], PART], strict=True)
    ]
    end = subgraph(
        PART, dict.fromkeys(names, "INT"), {}, node(1, "PreviewAny", {"source": ("INT", (-10, 0))})
    )
    return editor_file(
        node(1, ids[0], {f"={name}": ("INT", None) for name in names}),
        subgraphs=[*definitions, end],
    )


def circle(*node_types: str) -> dict[str, Any]:
    """Nodes of these kinds that feed each other in a circle, and an output."""
    count = len(node_types)
    ring = [
        node(
            i + 1,
            node_type,
            {"image": ("IMAGE", ((i - 1) % count + 1, 0))},
            "IMAGE",
            mode=4 if node_type != "Reroute" else 0,
        )
        for i, node_type in enumerate(node_types)
    ]
    return editor_file(*ring, node(9, "SaveImage", {"images": ("IMAGE", (1, 0))}, "", ["x"]))


def within_itself() -> Node:
    return subgraph(PART, {}, {}, node(5, PART))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (editor_file(), "no node that runs"),
        (editor_file(node(1, "Note")), "no node that runs"),
        (editor_file(node(1, PART)), r"node 1 .* its subgraph is not in the file"),
        (
            editor_file(node(1, "workflow>mine", title="Mine")),
            r"node 1 \(Mine\) .* convert it to a subgraph",
        ),
        (editor_file(node(7, "")), "node 7 .* it has no type"),
        (
            editor_file(node(1, PART), subgraphs=[within_itself()]),
            "contains itself; take node 1:5 out",
        ),
        (
            editor_file(
                node(1, PART),
                subgraphs=[
                    subgraph(PART, {}, {}, node(5, OTHER)),
                    subgraph(OTHER, {}, {}, node(6, PART)),
                ],
            ),
            "contains itself; take node 1:5:6 out",
        ),
        (nested(MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} deep"),
        (nested(MAX_DEPTH, width=10), f"more than {MAX_NODES} nodes"),
        (circle("Reroute", "Reroute"), "links form a circle"),
        (circle("ImageInvert", "Reroute", "ImageInvert"), "links form a circle"),
        (editor_file(*(node(i, "Note") for i in range(10_000))), f"more than {MAX_NODES} nodes"),
        ({"nodes": [3, None], "links": [[1], "x", {"id": []}]}, "it has no type"),
    ],
)
def test_what_cannot_be_converted_is_refused_soon(file: dict[str, Any], message: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidWorkflow, match=message):
        read_workflow(file, DEFS)
    assert time.process_time() - began < 5


def test_the_deepest_and_longest_accepted_files_convert() -> None:
    assert list(read(nested(MAX_DEPTH))) == ["1"]
    assert len(read(shown_through(MAX_DEPTH - 1, inputs=6))) == 1
    reroutes = [node(i, "Reroute", {"": ("*", (i - 1, 0))}, "IMAGE") for i in range(2, 2000)]
    saves = [
        node(i, "SaveImage", {"images": ("IMAGE", (1999, 0))}, "", ["x"]) for i in range(2000, 4000)
    ]
    load = node(1, "LoadImage", {}, "IMAGE MASK", ["a.png", "image"])
    workflow = read(editor_file(load, *reroutes, *saves))
    assert len(workflow) == 2001
    assert {
        tuple(entry["inputs"]["images"])
        for entry in workflow.values()
        if "images" in entry["inputs"]
    } == {("1", 0)}


@pytest.mark.parametrize(
    "broken", ["inputs", "outputs", "properties", "widgets_values", "mode", "title", "id"]
)
@pytest.mark.parametrize("with_what", [None, 3, "x", [], [None], {}, {"a": []}])
def test_a_malformed_file_never_raises_anything_else(broken: str, with_what: Any) -> None:
    file = copy.deepcopy(FILES["subgraphs in subgraphs"])
    for entry in [*file["nodes"], *file["definitions"]["subgraphs"][2]["nodes"]]:
        entry[broken] = with_what
    with contextlib.suppress(InvalidWorkflow):
        read_workflow(file, DEFS)


def test_nothing_is_kept_to_anybody() -> None:
    script = (
        "import json, sys; from comfy_worker.workflow.convert.to_api import read_workflow; "
        "from comfy_worker.workflow.node_defs import NodeDefs; before = 'comfy_cli' in sys.modules; "
        "read_workflow(json.loads(sys.argv[1]), NodeDefs({})); "
        "print(before, [m for m in sys.modules if 'tracking' in m or m in ('posthog', 'mixpanel')])"
    )
    file = json.dumps(FILES["plain"])
    run = subprocess.run(
        [sys.executable, "-c", script, file], capture_output=True, text=True, cwd=REPO, check=True
    )
    assert run.stdout.strip() == "False []"


def linked(slot: Any) -> dict[str, Any]:
    """Two nodes; the slot that their link comes from is written in this way."""
    file = editor_file(
        node(1, "EmptyImage", {}, "IMAGE", widgets=[64, 64, 1, 0]),
        node(2, "ImageInvert", {"image": ("IMAGE", (1, 0))}, "IMAGE"),
        node(3, "PreviewImage", {"images": ("IMAGE", (2, 0))}),
    )
    file["links"][0][2] = slot
    return file


@pytest.mark.parametrize("slot", [0, "0", 0.0])
def test_slots_are_read_as_text_too(slot: Any) -> None:
    assert read_workflow(linked(slot), DEFS).workflow["2"]["inputs"] == {"image": ["1", 0]}


@pytest.mark.parametrize("slot", [None, "a", "", 0.5, True, [0], {}, "9" * 400, float("nan")])
def test_unreadable_links_are_refused(slot: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="link that cannot be read, 1;") as caught:
        read_workflow(linked(slot), DEFS)
    assert caught.value.details == [{"node_id": "2", "link_id": "1"}]


@pytest.mark.parametrize("link", [None, [], {}, "x", [77]])
def test_unused_unreadable_links_do_no_harm(link: Any) -> None:
    file = linked(0)
    file["links"].append(link)
    assert read_workflow(file, DEFS).workflow["2"]["inputs"] == {"image": ["1", 0]}
