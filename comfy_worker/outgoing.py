"""Makes what leaves the worker safe to send: results, errors, progress and streamed values.

A client can send half of a surrogate pair, NaN, or lists in lists in lists, and get them back in an
answer. JSON or UTF-8 has no form for these: such an answer could not be sent, and the job would
hang.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["posted_size", "safe", "shortened", "to_json_bytes", "within"]

MAX_DEPTH = 250
TOO_DEEP = "(nested too deep)"
# What an error's details may take of an answer, and one text in them.
DETAILS_BYTES = 50_000
TEXT_LENGTH = 1_000
KEY_LENGTH = 200
LIST_LENGTH = 200
# How much of a text is searched for secrets. No longer part of it is ever kept.
REDACTED_LENGTH = 100_000

Redact = Callable[[str], str]


def safe(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Copy a value so that it can be sent as JSON in UTF-8.

    Args:
        value: what a job answers.
        depth: how deep lists and objects may be nested; deeper ones become a text that says so.
    """
    if isinstance(value, str):
        return _safe_text(value)
    if isinstance(value, Mapping):
        if not depth:
            return TOO_DEEP
        return {_safe_text(str(key)): safe(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [safe(item, depth - 1) for item in value] if depth else TOO_DEEP
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return _safe_text(str(value))


def _safe_text(text: str) -> str:
    """The text, with each half of a surrogate pair replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two halves that belong together become one character; a lone half is replaced.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def to_json_bytes(value: Any) -> bytes:
    """Write a value as the SDK posts it: JSON in UTF-8, a space after each comma and colon."""
    return json.dumps(safe(value), ensure_ascii=False).encode()


def posted_size(value: Any) -> int:
    """How many bytes a value takes when it is posted."""
    return len(to_json_bytes(value))


def shortened(text: str, length: int = TEXT_LENGTH, redact: Redact = str) -> str:
    """Cut a long text; what is left says how long it was.

    Args:
        text: anything a client or a node may have written.
        length: how many characters it may have.
        redact: takes secrets out; it comes before the cut, which could leave half a secret.
    """
    kept = redact(text[:REDACTED_LENGTH])
    if len(text) <= length:
        return kept
    return f"{kept[:length]}... ({len(text):,} characters)"


def within(
    items: Sequence[Any], redact: Redact = str, limit_bytes: int = DETAILS_BYTES
) -> list[Any]:
    """The first of some findings, as many as fit; the last entry then counts those left out.

    Args:
        items: what an error or a validation lists; long texts and lists in them are cut.
        redact: takes secrets out of a text.
        limit_bytes: how much all of them may take as JSON.
    """
    kept: list[Any] = []
    size = 0
    for item in items:
        short = _shortened_json(safe(item), redact)
        size += posted_size(short)
        if size > limit_bytes:
            break
        kept.append(short)
    left_out = len(items) - len(kept)
    if left_out:
        kept.append(
            {"left_out": left_out, "problem": f"{left_out:,} more would make the answer too large"}
        )
    return kept


def _shortened_json(value: Any, redact: Redact) -> Any:
    """Copy one finding with its long texts and long lists cut."""
    if isinstance(value, str):
        return shortened(value, redact=redact)
    if isinstance(value, dict):
        pairs = list(value.items())[:LIST_LENGTH]
        return {
            shortened(key, KEY_LENGTH, redact): _shortened_json(item, redact) for key, item in pairs
        }
    if isinstance(value, list):
        items = [_shortened_json(item, redact) for item in value[:LIST_LENGTH]]
        left_out = len(value) - len(items)
        return [*items, f"({left_out:,} more)"] if left_out else items
    return value
