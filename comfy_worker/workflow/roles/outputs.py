"""Finds the output nodes of a workflow and the nodes that ComfyUI would run for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from comfy_worker.workflow.node_defs import ANY_TYPE, WIDGET_TYPES
from comfy_worker.workflow.typed_workflow import TypedWorkflow, types_in
from comfy_worker.workflow.walks import Fold, walk

__all__ = ["UsefulNodes", "find_live_nodes", "find_outputs"]

PLAIN_TYPES = frozenset({*WIDGET_TYPES, ANY_TYPE})


def find_outputs(graph: TypedWorkflow) -> tuple[str, ...]:
    """Return the output nodes. A node that is not installed counts as one if no node reads it."""
    found = []
    for node_id in graph.workflow:
        declared = graph.declared(node_id)
        is_output = not graph.is_read(node_id) if declared is None else declared.is_output
        if is_output:
            found.append(node_id)
    return tuple(found)


def find_live_nodes(graph: TypedWorkflow, outputs: Sequence[str]) -> list[str]:
    """Return the nodes that ComfyUI would run, in the workflow's order.

    Returns all nodes if there is no output node.
    """
    node_ids = set(walk(outputs, graph.nodes_above, graph.check))
    return [node_id for node_id in graph.workflow if node_id in node_ids or not node_ids]


class UsefulNodes:
    """Decides whether a title may claim a parameter for a node: its output must be of use.

    A node counts if it is a sampler or reads a model, a picture or the like, or if it feeds such a
    node.

    Args:
        graph: the workflow.
        samplers: the ids of the samplers.
    """

    def __init__(self, graph: TypedWorkflow, samplers: Collection[str]) -> None:
        self._graph = graph
        self._samplers = samplers
        self._feeds = Fold(graph.fed_by, self._is_useful, graph.check)

    def __call__(self, node_id: str) -> bool:
        """Whether a title may claim a parameter for this node."""
        return self._feeds(node_id)

    def _is_useful(self, node_id: str, below: list[bool]) -> bool:
        graph = self._graph
        if any(below) or node_id in self._samplers:
            return True
        declared = graph.declared(node_id)
        if declared is None or declared.is_api:
            return True
        if not declared.is_output and not graph.is_read(node_id):
            return True
        linked = map(graph.type_of, graph.links(node_id))
        return any(types_in(type_name).isdisjoint(PLAIN_TYPES) for type_name in linked)
