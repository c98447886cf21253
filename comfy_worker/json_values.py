"""Reads JSON from clients, and finds values in it that only Python's JSON reader accepts.

Python accepts halves of surrogate pairs, which cannot be encoded; numbers of thousands of digits,
which no float holds; and nesting that is too deep for recursive functions.
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
    """Read a JSON text, with or without a byte order mark.

    Raises:
        ValueError: the text is not JSON, or nested too deep for Python's reader.
    """
    try:
        return json.loads(text.lstrip("\ufeff \t\r\n"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def find_problem(
    value: Any, *, finite: bool = True, check: Callable[[], None] | None = None
) -> str | None:
    """Find a value that later steps cannot handle.

    Args:
        value: JSON that has been read.
        finite: whether NaN and Infinity are problems: JSON has no word for them.
        check: raises where the job must end; called now and then.

    Returns:
        What is wrong, for "... holds {problem}"; None where all is well.
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
            else:
                problem = _scalar_problem(entry, finite=finite)
                if problem is not None:
                    return problem
        row = inner
        depth += 1
    return None


def _scalar_problem(value: Any, *, finite: bool) -> str | None:
    if isinstance(value, str) and not value.isascii() and not _is_encodable(value):
        return "half of a surrogate pair, as text that was cut within a character does"
    if isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
        return "a number of more than 300 digits"
    if finite and isinstance(value, float) and not math.isfinite(value):
        return "NaN or Infinity, which JSON lacks"
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
