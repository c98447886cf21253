"""Builds a template's JSON Schema from the schema of requests and the template's workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_worker.planning.templates import Template
from comfy_worker.request.schema import JobInput, Parameters
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.edit.parameters import describe
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles

__all__ = ["template_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def template_schema(template: Template, defs: NodeDefs) -> dict[str, Any]:
    """The JSON Schema of ``job["input"]`` for one template.

    Args:
        template: a named workflow.
        defs: the node definitions of the running ComfyUI, with its model files.

    Returns:
        The schema of an object; ``default`` is the value of a key that a request leaves out.
    """
    contract = JobInput.model_json_schema()
    declared = template.params.parameters
    workflow = read_workflow(template.workflow, defs).workflow
    roles = find_roles(workflow, defs)
    described = describe(workflow, roles, defs, declared)
    own = {name: _without_places(entry) for name, entry in described.items()}
    for name, entry in declared.items():
        own[name] = {"description": entry.description, **own[name]}
    if "seed" in own:
        own["seed"] = {**own["seed"], "minimum": -1, "default": -1}
    absent = {name for name in (*Parameters.model_fields, "image", "mask") if name not in described}
    if roles.alpha_masks:
        absent.discard("mask")
    if not roles.samplers:
        absent |= {"loras", "controlnets", "clip_skip"}
    properties = {key: entry for key, entry in contract["properties"].items() if key not in absent}
    for name in Parameters.model_fields.keys() & own.keys():
        properties[name] = {"description": properties[name]["description"], **own[name]}
    properties["workflow"] = {"const": template.name}
    further = {name: own[name] for name in declared if name not in JobInput.model_fields}
    properties["parameters"] = {"type": "object", "properties": further, "additionalProperties": False}
    return {
        "$schema": DIALECT,
        "title": template.name,
        "description": template.params.description,
        "type": "object",
        "properties": properties,
        "required": ["workflow", *template.params.required],
        "additionalProperties": False,
        "$defs": contract["$defs"],
    }


def _without_places(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter's description without the nodes that hold it."""
    return {key: value for key, value in entry.items() if key != "places"}
