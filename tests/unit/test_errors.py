"""Every error code is documented, and raised somewhere."""

from __future__ import annotations

import re

import pytest

from comfy_common.paths import REPO
from comfy_worker import errors
from comfy_worker.errors import InvalidValue, WorkerError

SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for path in [REPO / "handler.py", *(REPO / "comfy_worker").rglob("*.py")]
    if path.name != "errors.py"
)


def leaves(base: type[WorkerError]) -> list[type[WorkerError]]:
    below = base.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [base]


LEAVES = leaves(WorkerError)


def test_the_documented_codes_are_those_that_there_are() -> None:
    documented = re.findall(
        r"^\| `([A-Z_]+)`", (REPO / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert documented == [error.code for error in LEAVES]


def test_codes_are_unique_and_documented_in_docstring() -> None:
    codes = [error.code for error in LEAVES]
    assert len(set(codes)) == len(codes)
    tree = dict(re.findall(r"── (\w+) +([A-Z_]+) ", errors.__doc__ or ""))
    assert tree == {error.__name__: error.code for error in LEAVES}


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.code)
def test_each_error_is_raised_somewhere(error: type[WorkerError]) -> None:
    assert re.search(rf"\b{error.__name__}\(", SOURCES)


def test_an_error_as_a_result() -> None:
    error = InvalidValue("width must be a multiple of 8, not 7; 8 is near", [{"key": "width"}])
    assert error.to_result() == {
        "error": "INVALID_VALUE: width must be a multiple of 8, not 7; 8 is near",
        "code": "INVALID_VALUE",
        "message": "width must be a multiple of 8, not 7; 8 is near",
        "details": [{"key": "width"}],
    }
