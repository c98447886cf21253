"""Finds the graph in a picture that ComfyUI saved. No pixel of the picture is decoded."""

from __future__ import annotations

import json
from typing import Any

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.inputs import files as media
from comfy_worker.inputs.picture_texts import picture_texts

__all__ = ["graph_of_picture", "is_picture", "read_saved_graph"]

# The API format comes first: it is what ran, with every variant chosen.
KEYS = ("prompt", "workflow")
# No template's name is so long.
MAX_NAME = 200


def is_picture(text: str) -> bool:
    """Whether a text is a picture as base64 or data URI, rather than a name."""
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
    for key in KEYS:
        try:
            graph = json.loads(found.get(key, "null"))
        except (ValueError, RecursionError):
            continue
        if isinstance(graph, dict):
            return graph
    raise InvalidWorkflow(
        "workflow is a picture without a graph in it; send one as ComfyUI saved it, not edited since"
    )
