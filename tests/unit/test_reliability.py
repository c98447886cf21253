"""docs/reliability.md: every fault names a test that exists."""

from __future__ import annotations

import ast
import re

import pytest

from comfy_common.paths import REPO

PAGE = (REPO / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+) \| (.+) \| `(.+)::(.+)` \|$", PAGE, re.MULTILINE)


def test_there_are_at_least_thirty_faults_and_every_row_names_its_test() -> None:
    assert len([line for line in PAGE.splitlines() if line.startswith("|")]) == len(ROWS) + 2
    assert len(ROWS) >= 30


@pytest.mark.parametrize(("file", "test"), sorted({(file, test) for _, _, file, test in ROWS}))
def test_the_test_of_a_fault_exists(file: str, test: str) -> None:
    tree = ast.parse((REPO / "tests" / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
