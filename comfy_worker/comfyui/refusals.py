"""Turns ComfyUI's refusal of a workflow into findings that name the node and the input."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import WorkflowRefused
from comfy_worker.workflow.check.comfyui_errors import IN_COMFYUI

__all__ = ["findings", "refusal"]

# Before 0.33 only the sentence names the node.
NODE_ID = re.compile(r"^Node ID '#(.*)'$")
# The names that versions before 0.33 have for a type of error.
TYPE_NAMES = {"invalid_prompt": "missing_node_type"}


def refusal(answer: Mapping[str, Any], workflow: Mapping[str, Any]) -> WorkflowRefused:
    """Build the error for a refused ``POST /prompt``."""
    details = findings(answer, workflow)
    first = details[0]
    where = ""
    if first["node_id"] is not None:
        where = f"node {first['class_type']} {first['node_id']}"
        if first["input"]:
            where += f".{first['input']}"
        where = f" ({where})"
    return WorkflowRefused(
        f"ComfyUI refused the workflow: {first['problem']}{where}; the details list every finding",
        details,
    )


def findings(answer: Mapping[str, Any], workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List what ComfyUI refused, at least one finding, as ``workflow.check.preflight`` does.

    Args:
        answer: ``{"error", "node_errors"}``, as ``POST /prompt`` answers.
        workflow: the graph that was refused.
    """
    found = []
    for node_id, entry in (answer.get("node_errors") or {}).items():
        for error in entry.get("errors", ()):
            node = _node(node_id, workflow, entry.get("class_type"))
            found.append({**node, **_input(error), **_problem(error)})
    if not found:
        error = answer.get("error")
        if not isinstance(error, dict):
            error = {"message": json.dumps(error)}
        found.append(_prompt_finding(error, workflow))
    return found


def _prompt_finding(error: Mapping[str, Any], workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Read an error that ComfyUI raises before it looks at single inputs."""
    node_id = (error.get("extra_info") or {}).get("node_id")
    if node_id is None and (match := NODE_ID.match(str(error.get("details")))):
        node_id = match[1]
    problem = _problem(error)
    if node_id is None:
        nothing = dict.fromkeys(("node_id", "title", "class_type", "input", "given"))
        return {**nothing, **problem}
    problem["type"] = TYPE_NAMES.get(problem["type"], problem["type"])
    return {**_node(node_id, workflow), "input": None, "given": None, **problem}


def _node(
    node_id: str, workflow: Mapping[str, Any], class_type: str | None = None
) -> dict[str, Any]:
    node = workflow.get(node_id, {})
    class_type = node.get("class_type") or class_type
    title = (node.get("_meta") or {}).get("title") or class_type
    return {"node_id": node_id, "title": title, "class_type": class_type}


def _input(error: Mapping[str, Any]) -> dict[str, Any]:
    extra = error.get("extra_info") or {}
    value = extra.get("received_value", extra.get("linked_node"))
    return {"input": extra.get("input_name"), "given": value}


def _problem(error: Mapping[str, Any]) -> dict[str, Any]:
    """Say what is wrong, in ComfyUI's own words."""
    problem = f"{error.get('message')}: {error.get('details')}"
    problem = problem.removesuffix(": ").removesuffix(": None")
    would_do = IN_COMFYUI
    if config := (error.get("extra_info") or {}).get("input_config"):
        would_do = f"give it what fits {config}"
    return {"type": error.get("type"), "problem": problem, "would_do": would_do}
