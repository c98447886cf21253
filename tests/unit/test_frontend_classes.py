"""Nodes that exist only in the editor are resolved as their packs' own web code does it."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.frontend_classes import CONTROLS, NOTES
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from tests.editor_files import MUTED, Node, editor_file, node, subgraph

PART = "11111111-2222-3333-4444-555555555555"
OTHER = "11111111-2222-3333-4444-666666666666"
LOAD = node(1, "Load", {}, "IMAGE MODEL")


def read(file: dict[str, Any]) -> Workflow:
    return read_workflow(file, NodeDefs({})).workflow


def save(source: tuple[int, int] | None, node_id: int = 9) -> Node:
    return node(node_id, "Save", {"images": ("IMAGE", source)})


@pytest.mark.parametrize("class_type", sorted(NOTES | CONTROLS))
def test_notes_and_controls_are_left_out(class_type: str) -> None:
    control = node(2, class_type, {"Save": ("*", (1, 0))}, "*", [{"toggled": True}])
    workflow = read(editor_file(LOAD, control, save((1, 0))))
    assert workflow.keys() == {"1", "9"}
    assert workflow["9"]["inputs"] == {"images": ["1", 0]}


@pytest.mark.parametrize("class_type", ["Reroute", "Reroute (rgthree)", "SetNode", "easy setNode"])
def test_links_pass_through_in_a_row(class_type: str) -> None:
    first = node(2, class_type, {"": ("*", (1, 1))}, "*", ["a"])
    second = node(3, class_type, {"": ("*", (2, 0))}, "*", ["b"])
    assert read(editor_file(LOAD, first, second, save((3, 0))))["9"]["inputs"] == {
        "images": ["1", 1]
    }


@pytest.mark.parametrize(
    ("setter", "getter"), [("SetNode", "GetNode"), ("easy setNode", "easy getNode")]
)
@pytest.mark.parametrize("values", [["picture"], {"Constant": "picture"}])
def test_a_getter_reads_its_setter(setter: str, getter: str, values: Any) -> None:
    file = editor_file(
        LOAD,
        node(2, setter, {"IMAGE": ("IMAGE", (1, 0))}, "*", ["picture"]),
        {**node(3, getter, {}, "IMAGE"), "widgets_values": values},
        save((3, 0)),
    )
    assert read(file)["9"]["inputs"] == {"images": ["1", 0]}


def test_setters_of_another_pack_do_not_count() -> None:
    setter = node(2, "easy setNode", {"IMAGE": ("IMAGE", (1, 0))}, "*", ["picture"])
    assert (
        read(editor_file(LOAD, setter, node(3, "GetNode", {}, "*", ["picture"]), save((3, 0))))[
            "9"
        ]["inputs"]
        == {}
    )


def test_getters_look_outward_and_find_the_nearest() -> None:
    inner = subgraph(OTHER, {}, {}, node(21, "GetNode", {}, "*", ["a"]), save((21, 0), 29))
    middle = subgraph(
        PART,
        {},
        {},
        node(11, OTHER),
        node(12, "Load", {}, "IMAGE MODEL"),
        node(13, "SetNode", {"IMAGE": ("IMAGE", (12, 0))}, "*", ["b"]),
        node(14, "GetNode", {}, "*", ["b"]),
        save((14, 0), 19),
    )
    setters = [
        node(number, "SetNode", {"": ("*", (1, 1))}, "*", [name])
        for number, name in ((2, "a"), (3, "b"))
    ]
    workflow = read(editor_file(LOAD, *setters, node(5, PART), subgraphs=[middle, inner]))
    assert workflow["5:11:29"]["inputs"] == {"images": ["1", 1]}
    assert workflow["5:19"]["inputs"] == {"images": ["5:12", 0]}


def test_a_setter_inside_is_not_seen_outside() -> None:
    inside = subgraph(
        PART,
        {},
        {},
        node(1, "Load", {}, "IMAGE"),
        node(2, "SetNode", {"": ("*", (1, 0))}, "*", ["a"]),
    )
    outside = node(6, "GetNode", {}, "*", ["a"])
    assert (
        read(editor_file(node(5, PART), outside, save((6, 0)), subgraphs=[inside]))["9"]["inputs"]
        == {}
    )


def test_set_and_get_nodes_can_form_a_cycle() -> None:
    setter = node(2, "SetNode", {"": ("*", (3, 0))}, "*", ["a"])
    with pytest.raises(InvalidWorkflow, match="links form a circle"):
        read(editor_file(setter, node(3, "GetNode", {}, "*", ["a"]), save((3, 0))))


def sender(class_type: str = "Anything Everywhere") -> Node:
    return node(10, class_type, {"anything": ("IMAGE", (1, 0))})


def everywhere(
    *links: tuple[int, int, str | int, int], class_type: str = "Anything Everywhere"
) -> dict[str, Any]:
    """A file in which Use Everywhere feeds what has no link of its own."""
    file = editor_file(LOAD, sender(class_type), save(None))
    keys = ("downstream", "downstream_slot", "upstream", "upstream_slot")
    entries = [
        {**dict(zip(keys, link, strict=True)), "controller": 10, "type": "IMAGE"} for link in links
    ]
    return {**file, "extra": {"ue_links": entries}}


@pytest.mark.parametrize(
    "class_type", ["Anything Everywhere", "Anything Everywhere?", "Prompts Everywhere"]
)
def test_links_of_use_everywhere_are_followed(class_type: str) -> None:
    workflow = read(everywhere((9, 0, "1", 0), class_type=class_type))
    assert workflow.keys() == {"1", "9"}
    assert workflow["9"]["inputs"] == {"images": ["1", 0]}


def test_a_drawn_link_wins_over_use_everywhere() -> None:
    extra = everywhere((9, 0, 1, 0))["extra"]
    drawn = editor_file(LOAD, sender(), save((1, 1)))
    assert read({**drawn, "extra": extra})["9"]["inputs"] == {"images": ["1", 1]}
    dead = editor_file(LOAD, sender(), node(2, "Load", {}, "IMAGE", mode=MUTED), save((2, 0)))
    assert read({**dead, "extra": extra})["9"]["inputs"] == {"images": ["1", 0]}


def test_use_everywhere_works_within_subgraphs() -> None:
    part = subgraph(PART, {}, {}, node(1, "Load", {}, "IMAGE MODEL"), sender(), save(None))
    part["extra"] = everywhere((9, 0, "1", 0))["extra"]
    assert read(editor_file(node(5, PART), subgraphs=[part]))["5:9"]["inputs"] == {
        "images": ["5:1", 0]
    }


@pytest.mark.parametrize(
    "extra", [None, {}, {"ue_links": []}, {"ue_links": "x"}, {"ue_links": [None, 3]}]
)
def test_missing_links_of_use_everywhere_name_the_pack(extra: Any) -> None:
    file = {**everywhere(), "extra": extra}
    with pytest.raises(
        InvalidWorkflow, match=r"node 10 \(Anything Everywhere, of the pack cg-use-everywhere\)"
    ):
        read(file)


def test_use_everywhere_that_nobody_needs_is_left_out() -> None:
    file = editor_file(
        LOAD, node(10, "Anything Everywhere", {"anything": ("MODEL", (1, 1))}), save((1, 0))
    )
    assert read(file).keys() == {"1", "9"}
    muted = {**everywhere(), "extra": {}}
    muted["nodes"][1]["mode"] = MUTED
    assert read(muted)["9"]["inputs"] == {}
