"""The files that a client's graph names -> the ones that were stored for it."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["name_stored"]


def name_stored(workflow: Workflow, defs: NodeDefs, stored: Mapping[str, str]) -> tuple[Workflow, set[str]]:
    """Let every node that names a client's file (``LoadImage``) name the stored one.

    Args:
        workflow: stays as it is.
        defs: the classes that this ComfyUI has; only their lists of choices are changed, never a text.
        stored: by the client's name, the stored file as ``LoadImage`` names it.

    Returns:
        The changed copy, and the client's names that it holds.
    """
    changed, used = dict(workflow), set[str]()
    for node_id, node in workflow.items():
        declared = defs.get(node["class_type"])
        inputs = {}
        for name, value in node["inputs"].items():
            plain = value.removesuffix(" [input]") if isinstance(value, str) else ""
            spec = declared.inputs.get(name) if declared else None
            if plain in stored and (spec is None or spec.type == "COMBO"):
                inputs[name] = stored[plain]
                used.add(plain)
        if inputs:
            changed[node_id] = {**node, "inputs": {**node["inputs"], **inputs}}
    return changed, used
