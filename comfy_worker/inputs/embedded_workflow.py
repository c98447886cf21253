"""Finds the graph in a picture that ComfyUI saved. No pixel of the picture is decoded."""

from __future__ import annotations

from typing import Any

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.inputs import files as media
from comfy_worker.inputs.picture_texts import picture_texts
from comfy_worker.json_values import find_problem, parse_json
from comfy_worker.request.schema import JobInput

__all__ = ["graph_of_picture", "read_saved_graph", "with_embedded_workflow"]

# The API format comes first: it is what ran, with every variant chosen.
KEYS = ("prompt", "workflow")
# The parts of a node that ComfyUI reads.
NODE_PARTS = ("inputs", "class_type", "_meta")
# No template's name is so long.
MAX_NAME = 200


def with_embedded_workflow(request: JobInput) -> JobInput:
    """Replace a picture in ``workflow`` by the graph in it; other requests stay as they are.

    Raises:
        InvalidMedia: the picture is not base64.
        InvalidWorkflow: it cannot be read as a picture, or holds no graph.
    """
    text = request.workflow
    if not isinstance(text, str) or not _is_picture(text):
        return request
    return request.model_copy(update={"workflow": read_saved_graph(text)})


def _is_picture(text: str) -> bool:
    """Whether a text is a picture as base64 or data URI, rather than a template's name."""
    return text.startswith("data:") or len(text) > MAX_NAME


def read_saved_graph(text: str) -> dict[str, Any]:
    """The graph in a picture that is base64 or a data URI; see :func:`graph_of_picture`.

    Raises:
        InvalidMedia: it is no base64.
        InvalidWorkflow: it is no picture, or holds no graph.
    """
    return graph_of_picture(media.decode("workflow", text))


def graph_of_picture(data: bytes) -> dict[str, Any]:
    """The graph that ComfyUI wrote into a picture.

    Args:
        data: a PNG, WebP or JPEG.

    Returns:
        The graph in API format where it is there, else in the editor's.

    Raises:
        InvalidWorkflow: it is no picture, or holds no graph.
    """
    found = {}
    for keyword, text in picture_texts(data):
        if keyword.lower() in KEYS:
            found[keyword.lower()] = text
    return _first_usable(found)


def _first_usable(texts: dict[str, str]) -> dict[str, Any]:
    """Return the first usable graph: with a broken ``prompt``, ``workflow`` may still be intact.

    Raises:
        InvalidWorkflow: there is none.
    """
    problems = []
    for key in KEYS:
        if key not in texts:
            continue
        try:
            graph = _as_read_by_comfyui(parse_json(texts[key]))
        except ValueError:
            problems.append(f"its {key} is not JSON")
            continue
        problem = find_problem(graph, finite=key == "prompt")
        if isinstance(graph, dict) and graph and problem is None:
            return graph
        problems.append(f"its {key} holds {problem or 'no graph'}")
    why = f" ({', '.join(problems)})" if problems else ""
    raise InvalidWorkflow(
        f"workflow is a picture without a graph that can be used{why}; send one as ComfyUI saved it, "
        "not edited since"
    )


def _as_read_by_comfyui(graph: Any) -> Any:
    """A graph in API format with the parts of its nodes that ComfyUI reads; anything else as it is.

    ComfyUI writes what it noted while it ran as well, such as ``is_changed: [NaN]``.
    """
    if not isinstance(graph, dict):
        return graph
    if not all(isinstance(node, dict) and "class_type" in node for node in graph.values()):
        return graph
    return {node_id: _read_parts(node) for node_id, node in graph.items()}


def _read_parts(node: dict[str, Any]) -> dict[str, Any]:
    return {part: node[part] for part in NODE_PARTS if part in node}
