"""Describes the parameters of a workflow in the words of JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_worker.workflow.constraints import Constraints
from comfy_worker.workflow.edit.parameters import Declared, constraint_of, inputs_of
from comfy_worker.workflow.edit.read import read
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["describe"]

STRICTER = {"minimum": max, "maximum": min, "multipleOf": max}


def describe(
    workflow: Workflow, roles: Roles, defs: NodeDefs, declared: Mapping[str, Declared] | None = None
) -> dict[str, dict[str, Any]]:
    """Describe what each parameter of a workflow accepts.

    Args:
        workflow: API format.
        roles: of this workflow.
        defs: the node classes of this ComfyUI.
        declared: a template's further parameters.

    Returns:
        By name: ``type``, ``minimum``, ``maximum``, ``multipleOf``, ``enum`` as in JSON Schema, if
        known; ``steps``, pairs of a start and a step, if the values begin at another number than a
        multiple of the step; ``default``, the current value; ``places``, its inputs as
        ``node_id.input``.
    """
    declared = declared or {}
    limits = Constraints(TypedWorkflow(workflow, defs))
    # A client may send the default to keep the workflow as it is, so it must be the input's own
    # value and not the number that the graph makes of it.
    defaults = read(workflow, replace(roles, latent_paths={}), declared)
    for name, entry in declared.items():
        if entry.default is not None:
            defaults[name] = entry.default
    described = {}
    for name in dict.fromkeys([*roles.inputs, *declared]):
        schema: dict[str, Any] = {}
        node_inputs = inputs_of(workflow, roles, name, declared)
        for node_input in node_inputs:
            own = constraint_of(name, node_input, limits, declared).to_schema()
            schema = _combined(schema, own)
        if name in defaults:
            schema["default"] = defaults[name]
        schema["places"] = [str(node_input) for node_input in node_inputs]
        described[name] = schema
    return described


def _combined(schema: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Combine the schemas of two inputs: the stricter bounds, and the choices of both."""
    both = {**other, **schema}
    for keyword, stricter in STRICTER.items():
        if keyword in schema and keyword in other:
            both[keyword] = stricter(schema[keyword], other[keyword])
    if "steps" in schema and "steps" in other:
        both["steps"] = [*schema["steps"], *other["steps"]]
    if "enum" in schema and "enum" in other:
        both["enum"] = [choice for choice in schema["enum"] if choice in other["enum"]]
    return both
