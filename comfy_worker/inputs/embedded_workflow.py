"""Reads the workflow that ComfyUI stored in a picture. Decodes none of the picture's pixels."""

from __future__ import annotations

from typing import Any

from comfy_worker.errors import InvalidMedia, InvalidWorkflow
from comfy_worker.inputs.inline_source import decode_base64
from comfy_worker.inputs.picture_texts import picture_texts
from comfy_worker.json_values import find_problem, parse_json

__all__ = ["is_picture_source", "workflow_of_picture", "workflow_of_source"]

# The API format comes first: it is what ran, with every variant chosen.
KEYS = ("prompt", "workflow")
# The name of a template is shorter.
MAX_NAME = 200
# The parts of a node in API format that ComfyUI reads.
NODE_PARTS = ("inputs", "class_type", "_meta")


def is_picture_source(text: str) -> bool:
    """Return whether a text is a picture as base64 or data URI, rather than a template's name."""
    return text.startswith("data:") or len(text) > MAX_NAME


def workflow_of_source(text: str) -> dict[str, Any]:
    """Read the workflow in a picture that is base64 or a data URI; see :func:`workflow_of_picture`.

    Raises:
        InvalidMedia: the text is a data URI, but its data is not base64.
        InvalidWorkflow: the text is not base64, the data is not a picture, or contains no workflow.
    """
    try:
        data = decode_base64("workflow", text)
    except InvalidMedia:
        if text.startswith("data:"):
            raise
        raise InvalidWorkflow(
            "workflow is neither readable JSON of a workflow nor a picture in base64; send the "
            "workflow as a JSON object, or the PNG or WebP as ComfyUI saved it"
        ) from None
    return workflow_of_picture(data)


def workflow_of_picture(data: bytes) -> dict[str, Any]:
    """Read the workflow that ComfyUI stored in a picture.

    Args:
        data: a PNG, WebP or JPEG.

    Returns:
        The workflow in API format if the picture contains it, else in UI format.

    Raises:
        InvalidWorkflow: the data is not a picture, or contains no workflow.
    """
    texts = {}
    for keyword, text in picture_texts(data):
        if keyword.lower() in KEYS:
            texts[keyword.lower()] = text
    return _first_usable(texts)


def _first_usable(texts: dict[str, str]) -> dict[str, Any]:
    """Return the first usable workflow: if ``prompt`` is damaged, ``workflow`` may be complete.

    Raises:
        InvalidWorkflow: no text holds a usable workflow.
    """
    problems = []
    for key in KEYS:
        if key not in texts:
            continue
        try:
            workflow = _keep_node_parts(parse_json(texts[key]))
        except ValueError:
            problems.append(f"its {key} is not JSON")
            continue
        problem = find_problem(workflow, finite=key == "prompt")
        if isinstance(workflow, dict) and workflow and problem is None:
            return workflow
        problems.append(f"its {key} holds {problem or 'no workflow'}")
    reasons = f" ({', '.join(problems)})" if problems else ""
    raise InvalidWorkflow(
        f"workflow is a picture without a usable workflow{reasons}; send the picture as ComfyUI "
        "saved it: editing it may remove the workflow"
    )


def _keep_node_parts(workflow: Any) -> Any:
    """Drop what ComfyUI does not read from the nodes of an API workflow.

    Any other value is returned unchanged.

    While a workflow runs, ComfyUI adds values to its nodes that are not JSON, such as ``is_changed:
    [NaN]``.
    """
    if not isinstance(workflow, dict):
        return workflow
    if not all(isinstance(node, dict) and "class_type" in node for node in workflow.values()):
        return workflow
    return {node_id: _node_parts(node) for node_id, node in workflow.items()}


def _node_parts(node: dict[str, Any]) -> dict[str, Any]:
    return {part: node[part] for part in NODE_PARTS if part in node}
