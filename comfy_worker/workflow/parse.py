"""Checks that a client's value has the form of an API-format workflow, and copies what counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import InvalidWorkflow, brief
from comfy_worker.workflow.graph import Workflow

__all__ = ["MAX_NODES", "parse"]

MAX_NODES = 5000
MAX_INPUTS = 5000  # of one node
MAX_NESTING = 50


def parse(value: Any) -> Workflow:
    """Check that a value has the form of an API-format workflow.

    Args:
        value: the client's value, JSON already read.

    Returns:
        A copy. Of each node it has what ComfyUI reads: ``inputs``, ``class_type`` and ``_meta``.

    Raises:
        InvalidWorkflow: the value is not an object, is empty or too large, a node lacks
            ``class_type`` or has ``inputs`` of another form, or an input has a value that JSON
            cannot express.
    """
    if not isinstance(value, dict) or not value:
        raise InvalidWorkflow(
            "workflow must be the name of a template, or a workflow that ComfyUI saved or exported "
            "(Workflow > Export (API))"
        )
    if len(value) > MAX_NODES:
        raise InvalidWorkflow(f"workflow has {len(value)} nodes; send at most {MAX_NODES}")
    problems = [(node_id, _problem(node)) for node_id, node in value.items()]
    details = [
        {"node_id": node_id, "problem": problem}
        for node_id, problem in problems
        if problem is not None
    ]
    if details:
        first = details[0]
        raise InvalidWorkflow(
            f"workflow is not in API format: {first['problem']} (node {first['node_id']}); "
            "in ComfyUI save it, or use Workflow > Export (API)",
            details,
        )
    workflow = {node_id: _kept(node) for node_id, node in value.items()}
    _check_input_counts(workflow)
    return workflow


def _problem(node: Any) -> str | None:
    """Say why a node does not have the form of an API-format node; None if it has."""
    if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
        return "class_type is missing"
    parts = [node.get("inputs"), node.get("_meta")]
    if not all(isinstance(part, (dict, type(None))) for part in parts):
        return "inputs or _meta is no object"
    if not _is_plain(parts):
        return "it holds NaN or Infinity, or is nested too deep"
    return None


def _check_input_counts(workflow: Workflow) -> None:
    for node_id, node in workflow.items():
        count = len(node["inputs"])
        if count > MAX_INPUTS:
            shown = brief(node_id)
            raise InvalidWorkflow(
                f"node {shown} has {count} inputs; send at most {MAX_INPUTS}",
                [{"node_id": shown, "problem": f"it has more than {MAX_INPUTS} inputs"}],
            )


def _kept(node: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in node.items() if key in ("inputs", "class_type", "_meta")}
    return {**kept, "inputs": dict(kept.get("inputs") or {})}


def _is_plain(value: Any) -> bool:
    """Whether JSON can express a value: it is not nested too deep, and every number is finite."""
    level = [value]
    for _ in range(MAX_NESTING):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                return False
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner
    return not level
