"""Splices clip skip into a workflow: CLIPSetLastLayer nodes before its text encoders."""

from __future__ import annotations

from comfy_worker.errors import NoPlace
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.graph import Input, Link, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Check, Fold, never_ends
from comfy_worker.workflow.workflow_editor import WorkflowEditor

__all__ = ["splice_clip_skip"]

SETTER = "CLIPSetLastLayer"


def splice_clip_skip(
    workflow: Workflow, defs: NodeDefs, clip_skip: int, check: Check = never_ends
) -> Workflow:
    """Stop the text encoders of a workflow some layers before their last.

    The CLIPSetLastLayer nodes of the workflow are set. A text encoder without one gets one directly
    before it, so behind all LoRA loaders. 1 is what a text encoder does by default, so it adds no
    node.

    Args:
        workflow: is not changed.
        defs: the node classes of this ComfyUI.
        clip_skip: 1..24, the layer counted from the end.
        check: called repeatedly; may raise to stop the work on a large workflow.

    Returns:
        A new workflow.

    Raises:
        InvalidValue: the number is out of range.
        NoPlace: no text encoder of the workflow has a CLIP.
    """
    layer = defs[SETTER].inputs["stop_at_clip_layer"]
    InputConstraint.of([layer]).negated().checked("clip_skip", clip_skip)
    graph = TypedWorkflow(workflow, defs, check)
    clips = _encoder_clips(graph)
    if not clips:
        raise NoPlace("this workflow cannot use clip_skip: none of its text encoders takes a CLIP")
    editor = WorkflowEditor(workflow)
    for node_id in _setters_above(graph, clips):
        editor.set(Input(node_id, "stop_at_clip_layer"), -clip_skip)
    if clip_skip > 1:
        for link in _clips_without_setter(graph, clips):
            node_id = editor.add(SETTER, "clip skip", clip=link, stop_at_clip_layer=-clip_skip)
            for node_input in clips[link]:
                editor.set(node_input, Link(node_id, 0))
    return editor.workflow


def _encoder_clips(graph: TypedWorkflow) -> dict[Link, list[Input]]:
    """Return the CLIP outputs that text encoders use, with the encoders' inputs."""
    clips: dict[Link, list[Input]] = {}
    for node_id, node in graph.workflow.items():
        node_class = graph.defs.get(node["class_type"])
        if node_class is None or "CONDITIONING" not in node_class.outputs:
            continue
        for node_input in graph.typed(node_id, "CLIP"):
            link = graph.link(node_input)
            if link is not None:
                clips.setdefault(link, []).append(node_input)
    return clips


def _is_setter(graph: TypedWorkflow, node_id: str) -> bool:
    return bool(graph.workflow[node_id]["class_type"] == SETTER)


def _setters_above(graph: TypedWorkflow, clips: dict[Link, list[Input]]) -> list[str]:
    node_inputs: list[Input] = []
    for readers in clips.values():
        node_inputs += readers
    return [
        node_id for node_id in graph.upstream(node_inputs, "CLIP") if _is_setter(graph, node_id)
    ]


def _clips_without_setter(graph: TypedWorkflow, clips: dict[Link, list[Input]]) -> list[Link]:
    def above(node_id: str) -> list[str]:
        return graph.above(node_id, "CLIP")

    def has_setter(node_id: str, found_above: list[bool]) -> bool:
        return _is_setter(graph, node_id) or any(found_above)

    is_set = Fold(above, has_setter, graph.check)
    return [link for link in clips if not is_set(link.node_id)]
