"""Turns pydantic's errors about a job's input into one error in the words of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from comfy_worker.errors import InputError, InvalidInput, UnknownKey, brief
from comfy_worker.nearest import nearest

__all__ = ["MAX_ENTRIES", "InputKeys", "input_error", "json_type"]

# Of a list in the input: each LoRA becomes a node, and each picture is decoded.
MAX_ENTRIES = 200
# Of one error's details.
MAX_FINDINGS = 20
# Errors quote a value up to this length.
MAX_QUOTED = 40


@dataclass(frozen=True)
class InputKeys:
    """The keys that an error may suggest for an unknown key.

    Attributes:
        own: the keys of the input.
        nested: by key, the keys of the objects in its value.
        known_words: words of other dialects.
    """

    own: Sequence[str]
    nested: Mapping[str, Sequence[str]]
    known_words: Sequence[str] = ()


def json_type(value: object) -> str:
    """Return the type of a value, in the words of JSON."""
    if value is None:
        return "null"
    names = {str: "text", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def input_error(
    error: ValidationError, keys: InputKeys, client_words: Mapping[str, str]
) -> InputError:
    """Turn pydantic's findings into one error of ours. An unknown key comes first."""
    findings = error.errors(include_url=False)
    unknown = [finding for finding in findings if finding["type"] == "extra_forbidden"]
    shown = findings[:MAX_FINDINGS]
    if unknown and unknown[0] not in shown:
        shown[-1] = unknown[0]
    details = [_finding(finding, keys, client_words) for finding in shown]
    first = details[shown.index(unknown[0])] if unknown else details[0]
    sentence = first["problem"]
    if len(findings) > len(details):
        sentence += f" ({len(findings) - 1} more findings, the first {len(details)} in the details)"
    elif len(details) > 1:
        sentence += f" ({len(details) - 1} more in the details)"
    return UnknownKey(sentence, details) if unknown else InvalidInput(sentence, details)


# By pydantic's type of error, what the value must be, in the words of JSON.
_PLAIN = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "dict_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_too_short": "some text",
    "too_long": f"a list of at most {MAX_ENTRIES} entries",
}


def _finding(
    finding: ErrorDetails, keys: InputKeys, client_words: Mapping[str, str]
) -> dict[str, Any]:
    """Return one entry of an error's details."""
    first, *rest = map(str, finding["loc"])
    key = brief(".".join([client_words.get(first, first), *rest]), 200)
    if finding["type"] == "extra_forbidden":
        return _unknown_key(finding, key, keys)
    if finding["type"] == "missing":
        return {"key": key, "problem": f"{key} is missing"}
    plain = _PLAIN.get(finding["type"])
    demand = f"be {plain}" if plain else finding["msg"].removeprefix("Input should ")
    problem = f"{key} must {demand}"
    value = finding["input"]
    if isinstance(value, (int, float, str)) and len(str(value)) <= MAX_QUOTED:
        problem += f", not {json.dumps(value)}"
    return {"key": key, "problem": problem}


def _unknown_key(finding: ErrorDetails, key: str, keys: InputKeys) -> dict[str, Any]:
    """Return the entry for an unknown key, with the nearest known one."""
    *parents, name = finding["loc"]
    own = keys.nested[str(parents[0])] if parents else keys.own
    suggested = own if parents else (*own, *keys.known_words)
    near = nearest(str(name), suggested, 1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(own)}"
    return {
        "key": key,
        "problem": f"{brief(key) or 'an empty name'} is not a key of the input; {hint}",
        "nearest": near[0] if near else None,
    }
