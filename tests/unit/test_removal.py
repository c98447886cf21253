"""Nodes that are removed from a workflow, and what goes with them."""

from __future__ import annotations

from comfy_worker.workflow.edit.removal import without_nodes
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import DEFS, node, txt2img


def test_a_node_that_requires_it_goes_too() -> None:
    graph = txt2img()
    assert without_nodes(graph, DEFS, ["latent"]).keys() == {"loader", "positive", "negative"}
    assert graph == txt2img()


def test_an_optional_input_is_dropped() -> None:
    edit = node("Edit", clip=["clip", 0], image1=["a", 0], image2=["b", 0])
    graph = {"clip": node("Clip"), "a": node("Load"), "b": node("Load"), "edit": edit}
    declared = {
        "input": {"required": {"clip": ["CLIP"]}, "optional": {"image1": ["IMAGE"]}},
        "output": ["CONDITIONING"],
        "output_node": False,
    }
    defs = NodeDefs({"Edit": declared})
    smaller = without_nodes(graph, defs, ["b"])
    assert smaller.keys() == {"clip", "a", "edit"}
    assert smaller["edit"]["inputs"] == {"clip": ["clip", 0], "image1": ["a", 0]}
    assert "edit" not in without_nodes(graph, defs, ["clip"])


def test_unknown_nodes_and_classes_do_not_matter() -> None:
    graph = {"a": node("Load"), "edit": node("Other", image=["a", 0], x=1)}
    assert without_nodes(graph, NodeDefs({}), ["nothing"]) == graph
    assert without_nodes(graph, NodeDefs({}), ["a"]) == {"edit": node("Other", x=1)}
