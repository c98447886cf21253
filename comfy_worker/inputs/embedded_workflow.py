"""The graph in a picture that ComfyUI saved: its metadata, read from base64.

Owns where each format keeps it. Knows nothing of what a graph is beyond JSON.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image, UnidentifiedImageError

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.inputs import files as media
from comfy_worker.json_values import find_problem, parse_json

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
        data: a PNG or WebP.

    Returns:
        The graph in API format where it is there, else in the editor's.

    Raises:
        InvalidWorkflow: it is no picture, or holds no graph.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "PNG":
                # ComfyUI writes an animation's metadata behind its pixels.
                image.seek(getattr(image, "n_frames", 1) - 1)
                image.load()
            found = dict(_texts(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise InvalidWorkflow(
            "workflow is no picture that can be read; send the PNG or WebP as ComfyUI saved it"
        ) from None
    return _first_usable(found)


def _first_usable(texts: dict[str, str]) -> dict[str, Any]:
    """The first graph that can be used: a picture whose ``prompt`` is broken may hold a whole ``workflow``.

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
    return {
        node_id: {part: node[part] for part in ("inputs", "class_type", "_meta") if part in node}
        for node_id, node in graph.items()
    }


def _texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """What is written in a picture under ComfyUI's keys."""
    for key in KEYS:
        if isinstance(image.info.get(key), str):
            yield key, image.info[key]
    for value in image.getexif().values():  # WebP: `prompt:{...}`
        key, colon, text = str(value).partition(":")
        if colon and key.lower() in KEYS:
            yield key.lower(), text
    for name, chunk, *_ in getattr(image, "private_chunks", ()):  # animated PNG: `prompt`, a zero byte, the text
        key_bytes, _zero, text_bytes = chunk.partition(b"\0")
        if name == b"comf" and key_bytes.decode("latin-1") in KEYS:
            yield key_bytes.decode("latin-1"), text_bytes.decode("latin-1")
