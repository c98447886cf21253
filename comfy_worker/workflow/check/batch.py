"""How many pictures at once a workflow asks for, held against what the endpoint allows."""

from __future__ import annotations

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.graph import Check, Input, Workflow, never_ends, number
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.tracing import Graph, literal_place

__all__ = ["check_batch_size"]

# The inputs that decide a batch, and the only classes for those whose name says less.
BATCH_INPUTS: dict[str, frozenset[str] | None] = {
    "batch_size": None,
    # RepeatImageBatch is not here: it copies a finished picture, often once per frame of a video.
    "amount": frozenset({"RepeatLatentBatch"}),
}
# They cut a batch that is there into pieces of that size.
CUTTERS = frozenset({"RebatchLatents", "RebatchImages"})
MAKES = ("LATENT", "IMAGE", "PIPE")


def check_batch_size(workflow: Workflow, defs: NodeDefs, maximum: int, check: Check = never_ends) -> None:
    """Refuse a workflow that makes more pictures at once than the endpoint allows.

    Args:
        workflow: after its last edit.
        defs: the classes that this ComfyUI has.
        maximum: the endpoint's setting.
        check: asked again and again, so that the look at a large graph can be ended.

    Raises:
        InvalidValue: a number of pictures that is written somewhere in it is too large.
    """
    graph = Graph(workflow, defs, check)
    for node_id, node in workflow.items():
        declared = graph.declared(node_id)
        if declared is None or node["class_type"] in CUTTERS:
            continue
        for name, classes in BATCH_INPUTS.items():
            if name not in node["inputs"] or (classes is not None and node["class_type"] not in classes):
                continue
            own = Input(node_id, name)
            place = literal_place(graph, own)
            # A size behind a switch or an expression has no literal that a client may be pointed to.
            size = number(graph.value(place) if place else graph.values(own))
            is_maker = any(word in output for output in declared.outputs for word in MAKES)
            if is_maker and size is not None and size > maximum:
                raise InvalidValue(
                    f"{name} of node {node_id} ({node['class_type']}) must be at most {maximum}, not {size}: "
                    "the endpoint's setting MAX_BATCH_SIZE",
                    [
                        {
                            "key": str(place or own),
                            "node_id": node_id,
                            "value": str(size),
                            "maximum": maximum,
                        }
                    ],
                )
