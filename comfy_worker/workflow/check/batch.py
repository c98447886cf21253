"""Checks that a workflow does not make more pictures at once than the endpoint allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.graph import Input, Workflow, number
from comfy_worker.workflow.joins import adds_batches
from comfy_worker.workflow.literals import resolve_literal
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Check, Fold, never_ends

__all__ = ["check_batch_size"]

# The inputs that set a batch size. If the name has other meanings too, the classes that count.
BATCH_INPUTS: dict[str, frozenset[str] | None] = {
    "batch_size": None,
    # RepeatImageBatch is not here: it copies a finished picture, often once per frame of a video.
    "amount": frozenset({"RepeatLatentBatch"}),
}
# These classes cut an existing batch into pieces of that size.
CUTTERS = frozenset({"RebatchLatents", "RebatchImages"})
BATCH_TYPES = ("LATENT", "IMAGE", "PIPE")
# Larger counts are not computed: a long chain of factors could make a number of any length.
MAX_COUNTED = 10**9


def check_batch_size(
    workflow: Workflow, defs: NodeDefs, maximum: int, check: Check = never_ends
) -> None:
    """Refuse a workflow that makes more pictures at once than the endpoint allows.

    Args:
        workflow: after its last edit.
        defs: the node classes of this ComfyUI.
        maximum: the endpoint's setting.
        check: called repeatedly; it raises if the job must end.

    Raises:
        InvalidValue: a number of pictures in the workflow is too large.
    """
    graph = TypedWorkflow(workflow, defs, check)
    for node_input in _batch_inputs(graph):
        _check_input(graph, node_input, maximum)
    _check_products(graph, maximum)


def _batch_inputs(graph: TypedWorkflow) -> Iterator[Input]:
    for node_id, node in graph.workflow.items():
        if node["class_type"] in CUTTERS or not _makes_batch(graph, node_id):
            continue
        for name, classes in BATCH_INPUTS.items():
            is_meant = classes is None or node["class_type"] in classes
            if name in node["inputs"] and is_meant:
                yield Input(node_id, name)


def _makes_batch(graph: TypedWorkflow, node_id: str) -> bool:
    declared = graph.declared(node_id)
    if declared is None:
        return False
    outputs = " ".join(declared.outputs)
    return any(word in outputs for word in BATCH_TYPES)


def _check_input(graph: TypedWorkflow, node_input: Input, maximum: int) -> None:
    literal = resolve_literal(graph, node_input)
    # Behind a switch or an expression there is no literal, but the number is known.
    size = number(graph.value(literal) if literal else graph.values(node_input))
    if size is None or size <= maximum:
        return
    node_id, name = node_input
    class_type = graph.workflow[node_id]["class_type"]
    raise InvalidValue(
        f"{name} of node {node_id} ({class_type}) must be at most {maximum}, not {size}: "
        "the endpoint's setting MAX_BATCH_SIZE",
        [_detail(literal or node_input, node_id, size, maximum)],
    )


def _check_products(graph: TypedWorkflow, maximum: int) -> None:
    """Refuse a chain of nodes that repeat or join batches and together make too many latents."""

    def above(node_id: str) -> list[str]:
        # Only through latents: a batch of pictures is often a video's frames.
        return graph.above(node_id, "LATENT")

    def batch_number(node_id: str, name: str) -> int | None:
        size = number(graph.values(Input(node_id, name)))
        return int(size) if size is not None and size > 0 else None

    def batch_of(node_id: str, sizes_above: list[int]) -> int:
        class_type = graph.class_type(node_id)
        combine = sum if adds_batches(class_type) else max
        size = min(combine(sizes_above or [1]), MAX_COUNTED)
        if class_type == "RepeatLatentBatch":
            return min(size * (batch_number(node_id, "amount") or 1), MAX_COUNTED)
        if class_type == "LatentFromBatch":
            return min(size, batch_number(node_id, "length") or size)
        own = batch_number(node_id, "batch_size") or 1
        return min(size, own) if class_type in CUTTERS else max(size, own)

    count = Fold(above, batch_of, graph.check)
    for node_id in graph.workflow:
        node_input = _enlarging_input(graph, node_id)
        if node_input is not None and count(node_id) > maximum:
            size = count(node_id)
            raise InvalidValue(
                f"the batch that node {node_id} ({graph.class_type(node_id)}) makes must have at "
                f"most {maximum} latents, not {size}: the endpoint's setting MAX_BATCH_SIZE",
                [_detail(node_input, node_id, size, maximum)],
            )


def _enlarging_input(graph: TypedWorkflow, node_id: str) -> Input | None:
    """Return the input with which a node repeats or joins batches; None for other nodes."""
    class_type = graph.class_type(node_id)
    if class_type == "RepeatLatentBatch":
        return Input(node_id, "amount")
    return next(iter(graph.linked(node_id, "LATENT")), None) if adds_batches(class_type) else None


def _detail(node_input: Input, node_id: str, size: float, maximum: int) -> dict[str, Any]:
    """Return the detail of an error. The number may stand in an input of another node."""
    return {"key": str(node_input), "node_id": node_id, "value": str(size), "maximum": maximum}
