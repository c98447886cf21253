"""Names of variables, parameters, attributes and functions say what they name.

``python -m tests.unit.test_names_of_code`` prints the list of files that do not comply yet.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common.paths import REPO

BANNED = {"told", "asked", "said", "given", "one", "ones", "kind", "kinds", "place", "places"}
FOLDERS = ("comfy_common", "comfy_local", "comfy_setup", "comfy_worker", "docs")
FILES = [REPO / "handler.py", *(path for name in FOLDERS for path in (REPO / name).rglob("*.py"))]
# Files that still use these names. Remove a file once it complies; add none.
NOT_YET = Path(__file__).with_name("names_not_yet.txt")


def relative(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that a file defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name


def banned_names(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = sorted((line, name) for line, name in defined_names(tree) if name.strip("_") in BANNED)
    return [f"{relative(path)}:{line}: {name}" for line, name in found]


def exempt_files() -> set[str]:
    return set(NOT_YET.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("path", sorted(FILES), ids=relative)
def test_names_say_what_they_name(path: Path) -> None:
    if relative(path) in exempt_files():
        pytest.skip("does not comply yet")
    assert banned_names(path) == []


if __name__ == "__main__":
    for source in sorted(FILES):
        if banned_names(source):
            sys.stdout.write(f"{relative(source)}\n")
