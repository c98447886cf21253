"""Checks how many pictures a workflow makes at once against what the endpoint allows."""

from __future__ import annotations

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.graph import Check, Fold, Input, Workflow, never_ends, number
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.tracing import TypedWorkflow, resolve_literal

__all__ = ["check_batch_size"]

# The inputs that decide a batch; of a name with another meaning elsewhere, the classes that count.
BATCH_INPUTS: dict[str, frozenset[str] | None] = {
    "batch_size": None,
    # RepeatImageBatch is not here: it copies a finished picture, often once per frame of a video.
    "amount": frozenset({"RepeatLatentBatch"}),
}
# They cut an existing batch into pieces of that size.
CUTTERS = frozenset({"RebatchLatents", "RebatchImages"})
MAKES = ("LATENT", "IMAGE", "PIPE")
# Larger counts are not told apart: a long chain of factors would make a number of any length.
MAX_COUNTED = 10**9


def check_batch_size(
    workflow: Workflow, defs: NodeDefs, maximum: int, check: Check = never_ends
) -> None:
    """Refuse a workflow that makes more pictures at once than the endpoint allows.

    Args:
        workflow: after its last edit.
        defs: the classes that this ComfyUI has.
        maximum: the endpoint's setting.
        check: called again and again; it raises if the job must end.

    Raises:
        InvalidValue: a number of pictures in the workflow is too large.
    """
    graph = TypedWorkflow(workflow, defs, check)
    for node_id, node in workflow.items():
        declared = graph.declared(node_id)
        if declared is None or node["class_type"] in CUTTERS:
            continue
        is_maker = any(word in output for output in declared.outputs for word in MAKES)
        for name, classes in BATCH_INPUTS.items():
            is_meant = classes is None or node["class_type"] in classes
            if name not in node["inputs"] or not is_meant or not is_maker:
                continue
            own = Input(node_id, name)
            literal = resolve_literal(graph, own)
            # Behind a switch or an expression there is no literal, but the number is known.
            size = number(graph.value(literal) if literal else graph.values(own))
            if size is not None and size > maximum:
                key = str(literal or own)
                raise InvalidValue(
                    f"{name} of node {node_id} ({node['class_type']}) must be at most {maximum}, not {size}: "
                    "the endpoint's setting MAX_BATCH_SIZE",
                    [{"key": key, "node_id": node_id, "value": str(size), "maximum": maximum}],
                )
    _check_products(graph, maximum)


def _check_products(graph: TypedWorkflow, maximum: int) -> None:
    """Refuse a chain of nodes that each repeat a batch, and together make too many latents."""

    def batch_number(node_id: str, name: str) -> int | None:
        size = number(graph.values(Input(node_id, name)))
        return int(size) if size is not None and size > 0 else None

    def joined(node_id: str, above: list[int]) -> int:
        class_type = graph.workflow[node_id]["class_type"]
        size = max(above, default=1)
        if class_type == "RepeatLatentBatch":
            return min(size * (batch_number(node_id, "amount") or 1), MAX_COUNTED)
        if class_type == "LatentFromBatch":
            return min(size, batch_number(node_id, "length") or size)
        own = batch_number(node_id, "batch_size") or 1
        return min(size, own) if class_type in CUTTERS else max(size, own)

    # Only through latents: a batch of pictures is often a video's frames.
    count = Fold(lambda node_id: graph.above(node_id, "LATENT"), joined, graph.check)
    for node_id, node in graph.workflow.items():
        if node["class_type"] == "RepeatLatentBatch" and count(node_id) > maximum:
            size = count(node_id)
            raise InvalidValue(
                f"the batch that node {node_id} (RepeatLatentBatch) makes must have at most "
                f"{maximum} latents, not {size}: the endpoint's setting MAX_BATCH_SIZE",
                [
                    {
                        "key": f"{node_id}.amount",
                        "node_id": node_id,
                        "value": str(size),
                        "maximum": maximum,
                    }
                ],
            )
