"""Recognises and decodes files that stand in the input itself: base64 text, data URIs and URLs."""

from __future__ import annotations

import base64
import binascii
import re

from comfy_worker.errors import InvalidMedia

__all__ = ["decode_base64", "is_inline_source", "is_url"]

# Texts from a clipboard or a file begin with white space.
URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
DATA_URI = re.compile(r"\s*data:[^,]{0,200}?;base64,", re.ASCII | re.IGNORECASE)


def is_url(value: str) -> bool:
    """Return whether a text is a URL of any scheme."""
    return URL.match(value) is not None


def is_inline_source(value: object) -> bool:
    """Return whether a value is a URL or a data URI, where a workflow usually has a file's name."""
    return isinstance(value, str) and (is_url(value) or DATA_URI.match(value) is not None)


def decode_base64(key: str, value: str) -> bytes:
    """Decode base64, with or without the head of a data URI.

    Args:
        key: the value's key in the input, for the error.
        value: base64 text, of either alphabet; white space is ignored, and padding may be missing.

    Raises:
        InvalidMedia: the value is not base64.
    """
    head = DATA_URI.match(value)
    if head is not None:
        value = value[head.end() :]
    text = "".join(value.split()).replace("-", "+").replace("_", "/").rstrip("=")
    text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMedia(f"{key} must be base64, a data URI or a URL") from None
