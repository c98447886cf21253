"""Reads JSON that strangers wrote, and finds in it what Python takes and others do not.

Python's JSON reader takes halves of surrogate pairs, which cannot be encoded, numbers of thousands of
digits, which no float holds, and nesting that functions which call themselves do not survive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_JSON_NESTING", "find_problem", "parse_json"]

MAX_JSON_NESTING = 100
# A float holds 308 digits.
LARGEST_NUMBER = 10**300
CHECK_EVERY = 20_000


def parse_json(text: str) -> Any:
    """Read JSON text; a byte order mark in front does no harm.

    Raises:
        ValueError: it is not JSON, or nested too deep for Python's reader.
    """
    try:
        return json.loads(text.lstrip("\ufeff \t\r\n"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def find_problem(value: Any, *, finite: bool = True, check: Callable[[], None] | None = None) -> str | None:
    """What makes a JSON value unusable; None where nothing does.

    Args:
        value: JSON already read.
        finite: whether NaN and Infinity count, which JSON has no word for.
        check: raises where the job must end; called now and then.
    """
    depth, seen, row = 0, 0, [value]
    while row:
        if depth > MAX_JSON_NESTING:
            return f"lists and objects that are nested more than {MAX_JSON_NESTING} deep"
        inner: list[Any] = []
        for entry in row:
            seen += 1
            if check is not None and seen % CHECK_EVERY == 0:
                check()
            if isinstance(entry, dict):
                inner += entry.keys()
                inner += entry.values()
            elif isinstance(entry, list):
                inner += entry
            elif (problem := _scalar_problem(entry, finite=finite)) is not None:
                return problem
        row = inner
        depth += 1
    return None


def _scalar_problem(value: Any, *, finite: bool) -> str | None:
    if isinstance(value, str):
        if value.isascii() or _is_encodable(value):
            return None
        return "half of a surrogate pair, as text that was cut within a character does"
    if isinstance(value, int):
        return "a number of more than 300 digits" if abs(value) >= LARGEST_NUMBER else None
    if finite and isinstance(value, float) and not math.isfinite(value):
        return "NaN or Infinity, which JSON lacks"
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
