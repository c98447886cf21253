"""Every fault in docs/reliability.md names an existing test."""

from __future__ import annotations

import ast
import re

import pytest

from comfy_common.paths import REPO

PAGE = (REPO / "docs" / "reliability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (.+) \| (.+) \| `(.+)::(.+)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE)


def test_every_row_names_a_test() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    _heading, _rule, *faults = lines
    assert [line for line in faults if not ROW.fullmatch(line)] == []


@pytest.mark.parametrize(("file", "test"), sorted({(file, test) for _, _, file, test in ROWS}))
def test_named_test_exists(file: str, test: str) -> None:
    tree = ast.parse((REPO / "tests" / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
