"""Checks the values of other workers' words before they are translated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from comfy_worker.errors import InvalidInput, brief
from comfy_worker.json_values import find_problem

__all__ = [
    "checked_api_key",
    "count_at",
    "flag_at",
    "number_at",
    "object_at",
    "of_type",
    "refuse_unusable",
]

T = TypeVar("T")
API_KEY = re.compile(r"[!-~]{8,512}")
NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)
# The texts that our own keys read as true and as false. An empty text is false too.
ON = ("1", "t", "y", "on", "yes", "true")
OFF = ("", "0", "f", "n", "off", "no", "false")
# The largest number that the translation calculates with.
LARGEST = 1e9


def refuse_unusable(value: Mapping[str, Any], check: Callable[[], None] | None) -> None:
    """Reject values that Python's JSON reader accepts and later steps cannot handle."""
    problem = find_problem(list(value), check=check)
    if problem is not None:
        raise InvalidInput(
            f"a key of the input holds {problem}", [{"key": None, "problem": problem}]
        )
    for key, entry in value.items():
        if isinstance(entry, (int, float)):  # the reader of the key checks its range
            continue
        # A graph may hold NaN in values that nothing reads. The rest of it is checked with its
        # nodes.
        problem = find_problem(entry, finite=key != "workflow", check=check)
        if problem is not None:
            raise InvalidInput(
                f"{brief(key)} holds {problem}", [{"key": brief(key), "problem": problem}]
            )


def object_at(request: Mapping[str, Any], word: str) -> dict[str, Any]:
    """Return the object under a key; an empty object if the key is missing."""
    value = request.get(word)
    return of_type(word, {} if value is None else value, dict, "an object")


def of_type(word: str, value: Any, python_type: type[T], name: str) -> T:
    """Return a value; raise an error if it has another type."""
    if not isinstance(value, python_type):
        problem = f"{brief(word)} must be {name}, not {brief(repr(value))}"
        raise InvalidInput(problem, [{"key": brief(word)}])
    return value


def number_at(word: str, value: Any) -> float:
    """Return a value as a number; raise an error if it is not one, nor a text with one."""
    number = _without_text(value)
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not abs(number) < LARGEST:
        raise _wrong(word, value, "a number")
    found: float = number
    return found


def count_at(word: str, value: Any) -> int:
    """Return a number of pictures; raise an error if it is not a whole number of 1 or more."""
    count = _without_text(value)
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise _wrong(word, value, "a whole number of 1 or more")
    return count


def _without_text(value: Any) -> Any:
    """Return the number that a text holds; any other value as it is."""
    is_text = isinstance(value, str) and NUMBER.fullmatch(value.strip()) is not None
    return float(value) if is_text else value


def _wrong(word: str, value: Any, wanted: str) -> InvalidInput:
    return InvalidInput(f"{word} must be {wanted}, not {brief(repr(value))}", [{"key": word}])


def flag_at(word: str, value: Any) -> bool:
    """Return whether an option is on; raise an error if its value is a text that does not say."""
    if not isinstance(value, str):
        return bool(value)
    text = value.strip().lower()
    if text not in ON and text not in OFF:
        raise _wrong(word, value, "true or false")
    return text in ON


def checked_api_key(value: Any) -> str | None:
    """Check the form of a key for comfy.org; the error does not repeat it."""
    if value is None or (isinstance(value, str) and API_KEY.fullmatch(value)):
        return value
    raise InvalidInput(
        "comfy_org_api_key must have 8 to 512 printable characters and no spaces; send the key "
        "as platform.comfy.org shows it",
        [{"key": "comfy_org_api_key", "problem": "does not have the form of a key"}],
    )
