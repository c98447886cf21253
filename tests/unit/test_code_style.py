"""The rules of CONTRIBUTING for which ruff has no rule: names, and nested expressions.

``python -m tests.unit.test_code_style`` prints the files that do not comply yet, with the rule.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_common.paths import REPO

Finding = tuple[int, str]

BANNED_NAMES = {"told", "asked", "said", "given", "one", "ones", "kind", "kinds", "place", "places"}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FOLDERS = ("comfy_common", "comfy_local", "comfy_setup", "comfy_worker", "docs")
FILES = sorted(
    [REPO / "handler.py", *(path for name in FOLDERS for path in (REPO / name).rglob("*.py"))]
)
TESTS = sorted((REPO / "tests").rglob("*.py"))
BENCHMARKS = sorted((REPO / "benchmarks").rglob("*.py"))
MAX_TEST_NAME_WORDS = 8
# Lines of "path rule". Remove a line once the file complies; add none.
NOT_YET = Path(__file__).with_name("code_style_not_yet.txt")


def relative(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def defined_names(tree: ast.AST) -> Iterator[Finding]:
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


def banned_names(tree: ast.AST) -> Iterator[Finding]:
    for line, name in defined_names(tree):
        if name.strip("_") in BANNED_NAMES:
            yield line, name


def nested(tree: ast.AST, types: type | tuple[type, ...]) -> Iterator[Finding]:
    """Yield every expression of these types that contains another."""
    for node in ast.walk(tree):
        if isinstance(node, types) and sum(isinstance(part, types) for part in ast.walk(node)) > 1:
            yield node.lineno, type(node).__name__


def nested_comprehensions(tree: ast.AST) -> Iterator[Finding]:
    yield from nested(tree, COMPREHENSIONS)


def nested_conditionals(tree: ast.AST) -> Iterator[Finding]:
    """Yield conditional expressions within another, and those that are a condition."""
    yield from nested(tree, ast.IfExp)
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.While)) and isinstance(node.test, ast.IfExp):
            yield node.lineno, "conditional expression as a condition"


RULES: dict[str, Callable[[ast.AST], Iterator[Finding]]] = {
    "names": banned_names,
    "nested-comprehensions": nested_comprehensions,
    "nested-conditionals": nested_conditionals,
}


def findings(path: Path, rule: str) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [f"{relative(path)}:{line}: {text}" for line, text in sorted(RULES[rule](tree))]


def long_test_names(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f"{relative(path)}:{line}: {name}"
        for line, name in sorted(defined_names(tree))
        if name.startswith("test_") and name.count("_") > MAX_TEST_NAME_WORDS
    ]


CHECKS = [
    *((path, rule) for path in FILES for rule in RULES),
    *((path, "names") for path in (*TESTS, *BENCHMARKS)),
]
EXEMPT = set(NOT_YET.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    ("path", "rule"), CHECKS, ids=[f"{relative(path)}-{rule}" for path, rule in CHECKS]
)
def test_code_follows_the_rule(path: Path, rule: str) -> None:
    if f"{relative(path)} {rule}" not in EXEMPT:
        assert findings(path, rule) == []


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_names_of_tests_are_short(path: Path) -> None:
    assert long_test_names(path) == []


if __name__ == "__main__":
    for source, name in CHECKS:
        if findings(source, name):
            sys.stdout.write(f"{relative(source)} {name}\n")
