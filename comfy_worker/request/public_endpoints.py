"""Reads the words of RunPod's public endpoints for images and of comfy-gen's client.

RunPod's AI SDK provider sends the first kind to every endpoint. The functions here return keys of
our own input; `dialects` puts them into the request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import InvalidInput, brief

__all__ = [
    "FORMATS",
    "file_overrides",
    "image_format",
    "pair_of_numbers",
    "sides_of_ratio",
    "texts_as_images",
]

# The spellings of a file format -> ours.
FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
# Today's models are made for about a million pixels; the sides are multiples of this.
PIXELS, SIDE_STEP = 1024 * 1024, 16
# The share of PIXELS for each word of `resolution`.
RESOLUTIONS = {"0.5k": 0.25, "1k": 1.0, "2k": 4.0, "4k": 16.0}
SIDES = re.compile(r"(\d{1,6})\s*[*xX×]\s*(\d{1,6})")
RATIO = re.compile(r"(\d{1,4}(?:\.\d{1,4})?)\s*[:/]\s*(\d{1,4}(?:\.\d{1,4})?)")


def pair_of_numbers(word: str, value: Any) -> tuple[int, int]:
    """Read ``512*768`` or ``512x768``, in pixels.

    Raises:
        InvalidInput: the value has another form.
    """
    match = SIDES.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise InvalidInput(
            f"{word} must be text such as 512*768, not {brief(repr(value))}", [{"key": word}]
        )
    return int(match[1]), int(match[2])


def sides_of_ratio(ratio: Any, resolution: Any) -> tuple[int, int]:
    """Return width and height in pixels for an aspect ratio such as ``16:9``.

    Args:
        ratio: width and height with a colon.
        resolution: one of `RESOLUTIONS`; None for about a million pixels.

    Raises:
        InvalidInput: one of them has another form, or the ratio is extreme.
    """
    match = RATIO.fullmatch(ratio.strip()) if isinstance(ratio, str) else None
    if match is None or not float(match[1]) or not float(match[2]):
        raise InvalidInput(
            f"aspect_ratio must be text such as 16:9, not {brief(repr(ratio))}",
            [{"key": "aspect_ratio"}],
        )
    share = 1.0
    if resolution is not None:
        share = RESOLUTIONS.get(str(resolution).lower(), 0)
    if not share:
        raise InvalidInput(
            f"resolution must be one of {', '.join(RESOLUTIONS)}, not {brief(repr(resolution))}",
            [{"key": "resolution", "known": list(RESOLUTIONS)}],
        )
    quotient = float(match[1]) / float(match[2])
    if not 0.1 <= quotient <= 10:
        raise InvalidInput(
            f"aspect_ratio must lie between 1:10 and 10:1, not {brief(ratio)}",
            [{"key": "aspect_ratio"}],
        )
    width = math.sqrt(PIXELS * share * quotient)
    return _side(width), _side(width / quotient)


def _side(pixels: float) -> int:
    return max(SIDE_STEP, round(pixels / SIDE_STEP) * SIDE_STEP)


def image_format(word: str, value: Any) -> str:
    """Return our name of a file format.

    Raises:
        InvalidInput: the format is unknown.
    """
    known = FORMATS.get(value.strip().lower().lstrip(".")) if isinstance(value, str) else None
    if known is None:
        raise InvalidInput(
            f"{word} must be one of {', '.join(FORMATS)}, not {brief(repr(value))}",
            [{"key": word, "known": list(FORMATS)}],
        )
    return known


def texts_as_images(images: Any) -> list[str] | None:
    """Return the pictures of a list of texts (base64 or URLs); None if it is something else."""
    if not isinstance(images, list):
        return None
    sent = [image for image in images if image is not None]
    texts = [image for image in sent if isinstance(image, str)]
    return texts if texts and len(texts) == len(sent) else None


def file_overrides(value: Any) -> dict[str, Any]:
    """Read comfy-gen's ``file_inputs``: ``{"12": {"field": "image", "url": "https://..."}}``.

    Returns:
        Overrides that set the input of each node to the URL of its file.

    Raises:
        InvalidInput: an entry has no ``field`` or no ``url``.
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(
            "file_inputs must be an object by node id, such as "
            '{"12": {"field": "image", "url": "https://..."}}',
            [{"key": "file_inputs"}],
        )
    overrides = {}
    for node_id, entry in value.items():
        field = entry.get("field") if isinstance(entry, Mapping) else None
        url = entry.get("url") if isinstance(entry, Mapping) else None
        if not isinstance(field, str) or not isinstance(url, str):
            raise InvalidInput(
                f"file_inputs.{brief(node_id)} must have a `field` and a `url`",
                [{"key": "file_inputs", "node_id": brief(node_id)}],
            )
        overrides[f"{node_id}.{field}"] = url
    return overrides
