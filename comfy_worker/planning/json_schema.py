"""Makes a template's JSON Schema from the schema of the input and from the template's workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_worker.planning.templates import Template
from comfy_worker.request.schema import JobInput, Parameters
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.roles.roles import Roles

__all__ = ["template_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What needs a sampler to have an effect.
NEEDS_SAMPLER = {"loras", "controlnets", "clip_skip"}

Properties = dict[str, dict[str, Any]]


def template_schema(template: Template, defs: NodeDefs) -> dict[str, Any]:
    """Make the JSON Schema of ``job["input"]`` for one template.

    Args:
        template: a named workflow.
        defs: the node definitions of the ComfyUI that will run it, with the files that it has.

    Returns:
        A schema of an object. ``default`` is the value that is used if a key is absent.
    """
    contract = JobInput.model_json_schema()
    declared = template.params.parameters
    workflow = read_workflow(template.workflow, defs).workflow
    roles = find_roles(workflow, defs)
    described = _described(template, workflow, roles, defs)
    absent = _absent(described, roles)
    properties = {key: entry for key, entry in contract["properties"].items() if key not in absent}
    for name in Parameters.model_fields.keys() & described.keys():
        properties[name] = {"description": properties[name]["description"], **described[name]}
    properties["workflow"] = {"const": template.name}
    further = {name: described[name] for name in declared if name not in JobInput.model_fields}
    properties["parameters"] = {
        "type": "object",
        "properties": further,
        "additionalProperties": False,
    }
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


def _described(template: Template, workflow: Workflow, roles: Roles, defs: NodeDefs) -> Properties:
    """Describe the parameters that the workflow has inputs for."""
    declared = template.params.parameters
    described: Properties = {}
    for name, entry in describe(workflow, roles, defs, declared).items():
        described[name] = {key: value for key, value in entry.items() if key != "places"}
    for name, parameter in declared.items():
        described[name] = {"description": parameter.description, **described[name]}
    if "seed" in described:
        described["seed"] = {**described["seed"], "minimum": -1, "default": -1}
    return described


def _absent(described: Mapping[str, Any], roles: Roles) -> set[str]:
    """List the keys of the input that the workflow has no use for."""
    absent = {*Parameters.model_fields, "image", "mask"} - described.keys()
    if roles.alpha_masks:
        absent.discard("mask")
    if not roles.samplers:
        absent |= NEEDS_SAMPLER
    return absent
