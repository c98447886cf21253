"""The house keeps its layers: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from comfy_setup.paths import REPO

SOURCES = sorted(
    [REPO / "handler.py", *(REPO / "comfy_worker").rglob("*.py"), *(REPO / "comfy_setup").rglob("*.py")]
)

# What a module may import of ours, by the longest prefix of its own name; it may always import its own package.
ALLOWED = {
    "handler": ("comfy_worker",),
    "comfy_worker": ("comfy_worker", "comfy_setup.paths", "comfy_setup.models_txt"),
    "comfy_worker.errors": (),
    "comfy_worker.logs": (),
    "comfy_worker.stop": ("comfy_worker.errors",),
    "comfy_worker.settings": (
        "comfy_worker.errors",
        "comfy_worker.bucket",
        "comfy_worker.job",
        "comfy_setup.paths",
    ),
    "comfy_worker.bucket": (),
    "comfy_worker.fitness": ("comfy_worker", "comfy_setup.comfyui", "comfy_setup.console"),
    "comfy_worker.dialects": ("comfy_worker.errors", "comfy_worker.job"),
    "comfy_worker.families": (
        "comfy_worker.errors",
        "comfy_worker.family_table",
        "comfy_worker.safetensors_header",
    ),
    "comfy_worker.graph": ("comfy_worker.errors",),
    "comfy_worker.comfyui": (
        "comfy_worker.errors",
        "comfy_worker.logs",
        "comfy_worker.stop",
        "comfy_worker.graph.nodes",
    ),
    "comfy_worker.outputs": (
        "comfy_worker.addresses",
        "comfy_worker.bucket",
        "comfy_worker.errors",
        "comfy_worker.job",
        "comfy_worker.png",
        "comfy_worker.stop",
    ),
    "comfy_setup": (),
}
# Packages that the pure core must not touch.
SOCKETS_AND_FILES = {
    "asyncio",
    "http",
    "io",
    "os",
    "pathlib",
    "requests",
    "shutil",
    "socket",
    "subprocess",
    "time",
    "websocket",
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports, as written out in full."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            found |= {f"{module}.{alias.name}" for alias in node.names} if module in PACKAGES else {module}
    return found


PACKAGES = {module_name(path) for path in SOURCES if path.name == "__init__.py"}


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    name = module_name(path)
    layer = max((prefix for prefix in ALLOWED if within(name, prefix)), key=len)
    ours = {found for found in imports(path) if found.split(".")[0] in {"comfy_worker", "comfy_setup", "handler"}}
    allowed = (*ALLOWED[layer], layer)
    assert {found for found in ours if not any(within(found, prefix) for prefix in allowed)} == set()


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_the_handler_imports_runpod(path: Path) -> None:
    assert ("runpod" in {found.split(".")[0] for found in imports(path)}) == (path.name == "handler.py")


@pytest.mark.parametrize("path", [p for p in SOURCES if "graph" in p.parts], ids=module_name)
def test_the_graph_knows_no_sockets_and_no_files(path: Path) -> None:
    assert {found.split(".")[0] for found in imports(path)} & SOCKETS_AND_FILES == set()


SETUP_BEFORE_THE_VENV = [
    path for path in (REPO / "comfy_setup").glob("*.py") if path.stem not in {"first_picture", "placeholder"}
]


@pytest.mark.parametrize("path", SETUP_BEFORE_THE_VENV, ids=module_name)
def test_setup_starts_on_the_standard_library(path: Path) -> None:
    top = {found.split(".")[0] for found in imports(path, top_level_only=True)} - {"comfy_setup"}
    assert top - sys.stdlib_module_names == set()


def test_nothing_is_called_utils() -> None:
    assert [path for path in SOURCES if "utils" in path.stem] == []
