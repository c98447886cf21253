"""Replaces classes that ComfyUI no longer has by the classes that it has today.

ComfyUI does the same when it queues a workflow (``node_replace_manager``, since 0.33). The worker
does it earlier, so that parameters, LoRAs and checks see the workflow that will run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_worker.workflow.graph import Workflow, as_link
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["with_present_classes"]


def with_present_classes(workflow: Workflow, defs: NodeDefs) -> Workflow:
    """Return the workflow with the replacements that ComfyUI declares for classes that it lacks.

    Args:
        workflow: API format; is not changed.
        defs: the classes that this ComfyUI has, and the replacements.
    """
    replaced = dict(workflow)
    slots: dict[str, Mapping[int, int]] = {}
    for node_id, node in workflow.items():
        replacement = _replacement(node["class_type"], defs)
        if replacement is not None:
            replaced[node_id] = {
                **node,
                "class_type": replacement["new_node_id"],
                "inputs": _inputs(node["inputs"], replacement.get("input_mapping")),
            }
            slots[node_id] = _slots(replacement.get("output_mapping"))
    return _with_slots(replaced, slots) if any(slots.values()) else replaced


def _replacement(class_type: str, defs: NodeDefs) -> Mapping[str, Any] | None:
    """Return the replacement of a class; ComfyUI uses the first of several."""
    if class_type in defs or not defs.replacements.get(class_type):
        return None
    first: Mapping[str, Any] = defs.replacements[class_type][0]
    return first if first.get("new_node_id") in defs else None


def _inputs(values: Mapping[str, Any], mapping: list[Mapping[str, Any]] | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for entry in mapping or ():
        if "set_value" in entry:
            inputs[entry["new_id"]] = entry["set_value"]
        elif entry.get("old_id") in values:
            inputs[entry["new_id"]] = values[entry["old_id"]]
    return inputs


def _slots(mapping: list[Mapping[str, Any]] | None) -> dict[int, int]:
    """Return, by an output's old slot, its slot in the new class."""
    pairs = {int(entry["old_idx"]): int(entry["new_idx"]) for entry in mapping or ()}
    return {old: new for old, new in pairs.items() if old != new}


def _with_slots(workflow: Workflow, slots: Mapping[str, Mapping[int, int]]) -> Workflow:
    """Return the workflow with the links to replaced nodes moved to their new slots."""
    changed: Workflow = {}
    for node_id, node in workflow.items():
        inputs = dict(node["inputs"])
        for name, value in inputs.items():
            link = as_link(value)
            slot = slots.get(link.node_id, {}).get(link.slot) if link is not None else None
            if link is not None and slot is not None:
                inputs[name] = [link.node_id, slot]
        changed[node_id] = {**node, "inputs": inputs}
    return changed
