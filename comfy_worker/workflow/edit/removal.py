"""Removes nodes from a workflow, and whatever cannot run without them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from comfy_worker.workflow.graph import Workflow, links_of
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["without_nodes"]


def without_nodes(workflow: Workflow, defs: NodeDefs, node_ids: Iterable[str]) -> Workflow:
    """Remove nodes, the optional inputs that read them, and the nodes that require them.

    Args:
        workflow: is not changed.
        defs: the classes that this ComfyUI has; an input of an unknown class counts as optional.
        node_ids: the nodes to remove; those that the workflow lacks do not matter.

    Returns:
        The smaller copy.
    """
    removed: set[str] = set()
    found = {node_id for node_id in node_ids if node_id in workflow}
    while found:
        removed |= found
        found = {
            node_id
            for node_id in workflow.keys() - removed
            if _requires(workflow, defs, node_id, removed)
        }
    kept = {}
    for node_id, node in workflow.items():
        if node_id not in removed:
            links = links_of(node)
            lost = {name for name, link in links.items() if link.node_id in removed}
            inputs = {name: value for name, value in node["inputs"].items() if name not in lost}
            kept[node_id] = {**node, "inputs": inputs} if lost else node
    return kept


def _requires(workflow: Workflow, defs: NodeDefs, node_id: str, removed: Collection[str]) -> bool:
    """Whether a required input of a node reads one of the removed nodes."""
    node = workflow[node_id]
    declared = defs.get(node["class_type"])
    for name, link in links_of(node).items():
        spec = declared.spec(name, node["inputs"]) if declared else None
        if link.node_id in removed and spec is not None and spec.required:
            return True
    return False
