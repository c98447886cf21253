"""Clip skip, put into any graph: CLIPSetLastLayer before its text encoders."""

from __future__ import annotations

from comfy_worker.errors import NoPlace
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.graph import (
    Check,
    Fold,
    Input,
    Link,
    Workflow,
    WorkflowEditor,
    never_ends,
)
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["splice_clip_skip"]


def splice_clip_skip(
    workflow: Workflow, defs: NodeDefs, clip_skip: int, check: Check = never_ends
) -> Workflow:
    """Stop the text encoders of a graph some layers before their end.

    The CLIPSetLastLayer nodes of the graph are set; an encoder without one gets one right before it, so after all
    LoRA loaders. 1 is what an encoder does by itself, and adds none.

    Args:
        workflow: an API-format graph; stays as it is.
        defs: the node classes of this ComfyUI.
        clip_skip: 1..24, the layer counted from the end.
        check: asked again and again, so that the edit of a large graph can be ended.

    Returns:
        A new graph.

    Raises:
        InvalidValue: out of range.
        NoPlace: no text encoder of the graph has a CLIP.
    """
    layer = defs["CLIPSetLastLayer"].inputs["stop_at_clip_layer"]
    InputConstraint.of([layer]).negated().checked("clip_skip", clip_skip)
    graph = TypedWorkflow(workflow, defs, check)
    encoders = _encoders(graph)
    if not encoders:
        raise NoPlace("this workflow cannot use clip_skip: none of its text encoders takes a CLIP")
    editor = WorkflowEditor(workflow)

    def is_setter(node_id: str) -> bool:
        return str(workflow[node_id]["class_type"]) == "CLIPSetLastLayer"

    def has_setter(node_id: str, above: list[bool]) -> bool:
        return is_setter(node_id) or any(above)

    set_above = Fold(lambda node_id: graph.above(node_id, "CLIP"), has_setter, check)
    for node_id in graph.upstream(
        [place for places in encoders.values() for place in places], "CLIP"
    ):
        if is_setter(node_id):
            editor.set(Input(node_id, "stop_at_clip_layer"), -clip_skip)
    for link, places in encoders.items():
        if clip_skip > 1 and not set_above(link.node_id):
            new = editor.add(
                "CLIPSetLastLayer", "clip skip", clip=link, stop_at_clip_layer=-clip_skip
            )
            for place in places:
                editor.set(place, Link(new, 0))
    return editor.workflow


def _encoders(graph: TypedWorkflow) -> dict[Link, list[Input]]:
    """By CLIP output, the inputs of the text encoders that it feeds."""
    encoders: dict[Link, list[Input]] = {}
    for node_id, node in graph.workflow.items():
        node_class = graph.defs.get(node["class_type"])
        if node_class is not None and "CONDITIONING" in node_class.outputs:
            for place in graph.typed(node_id, "CLIP"):
                link = graph.link(place)
                if link is not None:
                    encoders.setdefault(link, []).append(place)
    return encoders
