"""The house keeps its layers: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from comfy_common.paths import REPO

PACKAGE_NAMES = ("comfy_common", "comfy_local", "comfy_setup", "comfy_worker")
SOURCES = sorted(
    [REPO / "handler.py", *(path for name in PACKAGE_NAMES for path in (REPO / name).rglob("*.py"))]
)

# Which rooms a room may import from beside its own. A room: the longest prefix of a module's name in this table.
ROOMS = {
    "handler": ("comfy_worker",),
    # the ground of all packages
    "comfy_common": (),
    # the worker's own ground
    "comfy_worker.errors": (),
    "comfy_worker.logs": (),
    "comfy_worker.job_record": (),
    "comfy_worker.nearest": (),
    "comfy_worker.deadline": ("comfy_worker.errors",),
    "comfy_worker.outgoing": (),
    "comfy_worker.server_paths": (),
    "comfy_worker.startup": (),
    "comfy_worker.error_response": (
        "comfy_worker.errors",
        "comfy_worker.logs",
        "comfy_worker.outgoing",
        "comfy_worker.server_paths",
    ),
    "comfy_worker.imaging": ("comfy_common", "comfy_worker.deadline", "comfy_worker.errors"),
    "comfy_worker.input_limits": (),
    "comfy_worker.json_values": (),
    "comfy_worker.response_formats": (),
    "comfy_worker.s3_location": (),
    "comfy_worker.settings": (
        "comfy_common",
        "comfy_worker.errors",
        "comfy_worker.input_limits",
        "comfy_worker.response_formats",
        "comfy_worker.s3_location",
    ),
    # the stages of a job, in their order: none imports a later one
    "comfy_worker.inputs": (
        "comfy_common",
        "comfy_worker.deadline",
        "comfy_worker.errors",
        "comfy_worker.imaging",
        "comfy_worker.input_limits",
        "comfy_worker.json_values",
        "comfy_worker.logs",
    ),
    "comfy_worker.request": (
        "comfy_worker.errors",
        "comfy_worker.inputs.embedded_workflow",
        "comfy_worker.json_values",
        "comfy_worker.nearest",
        "comfy_worker.response_formats",
        "comfy_worker.s3_location",
    ),
    "comfy_worker.job": (
        "comfy_worker.deadline",
        "comfy_worker.errors",
        "comfy_worker.request",
        "comfy_worker.response_formats",
        "comfy_worker.s3_location",
        "comfy_worker.settings",
    ),
    "comfy_worker.workflow": (
        "comfy_common.placeholder_names",
        "comfy_common.sources",
        "comfy_worker.errors",
        "comfy_worker.nearest",
    ),
    "comfy_worker.models": (
        "comfy_common",
        "comfy_worker.deadline",
        "comfy_worker.errors",
        "comfy_worker.logs",
        "comfy_worker.request.schema",
        "comfy_worker.settings",
        "comfy_worker.workflow",
    ),
    "comfy_worker.planning": (
        "comfy_common.comfyui_version",
        "comfy_common.node_map",
        "comfy_common.placeholder_names",
        "comfy_worker.errors",
        "comfy_worker.inputs",
        "comfy_worker.job",
        "comfy_worker.models",
        "comfy_worker.nearest",
        "comfy_worker.request.dialect_names",
        "comfy_worker.request.schema",
        "comfy_worker.workflow",
    ),
    "comfy_worker.comfyui": (
        "comfy_common",
        "comfy_worker.deadline",
        "comfy_worker.errors",
        "comfy_worker.logs",
        "comfy_worker.startup",
        "comfy_worker.workflow",
    ),
    "comfy_worker.response": (
        "comfy_common.addresses",
        "comfy_common.pinned_http",
        "comfy_common.text",
        "comfy_worker.comfyui",
        "comfy_worker.deadline",
        "comfy_worker.errors",
        "comfy_worker.imaging",
        "comfy_worker.job",
        "comfy_worker.job_record",
        "comfy_worker.logs",
        "comfy_worker.models.hub_aliases",
        "comfy_worker.outgoing",
        "comfy_worker.planning.plan",
        "comfy_worker.request",
        "comfy_worker.response_formats",
        "comfy_worker.s3_location",
        "comfy_worker.workflow",
    ),
    # for other machines too, so it needs nothing of the worker
    "comfy_worker.client": ("comfy_common",),
    # RunPod, and the walk of a job
    "comfy_worker.runpod_worker": ("comfy_common", "comfy_worker"),
    "comfy_worker": ("comfy_common", "comfy_worker"),
    # around the worker
    "comfy_local": ("comfy_common", "comfy_worker.client"),
    "comfy_setup": ("comfy_common", "comfy_local", "comfy_worker.client"),
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
    package = (
        module_name(path).split(".")
        if path.name == "__init__.py"
        else module_name(path).split(".")[:-1]
    )
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            found |= (
                {f"{module}.{alias.name}" for alias in node.names}
                if module in PACKAGES
                else {module}
            )
    return found


PACKAGES = {module_name(path) for path in SOURCES if path.name == "__init__.py"}


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    name = module_name(path)
    layer = max((prefix for prefix in ROOMS if within(name, prefix)), key=len)
    ours = {found for found in imports(path) if found.split(".")[0] in {*PACKAGE_NAMES, "handler"}}
    allowed = (*ROOMS[layer], layer)
    assert {
        found for found in ours if not any(within(found, prefix) for prefix in allowed)
    } == set()


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_runpod_worker_imports_runpod(path: Path) -> None:
    is_ours = within(module_name(path), "comfy_worker.runpod_worker")
    assert is_ours or "runpod" not in {found.split(".")[0] for found in imports(path)}


@pytest.mark.parametrize("path", [p for p in SOURCES if "workflow" in p.parts], ids=module_name)
def test_workflow_imports_no_sockets_or_files(path: Path) -> None:
    assert {found.split(".")[0] for found in imports(path)} & SOCKETS_AND_FILES == set()


INSIDE_THE_VENV = {"fetch_models"}
SETUP_BEFORE_THE_VENV = [
    p for p in (REPO / "comfy_setup").glob("*.py") if p.stem not in INSIDE_THE_VENV
]


@pytest.mark.parametrize("path", SETUP_BEFORE_THE_VENV, ids=module_name)
def test_setup_starts_on_the_standard_library(path: Path) -> None:
    top = {found.split(".")[0] for found in imports(path, top_level_only=True)} - set(PACKAGE_NAMES)
    assert top - sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", SETUP_BEFORE_THE_VENV, ids=module_name)
def test_setup_starts_without_the_worker(path: Path) -> None:
    """The image's first layers hold only comfy_setup and comfy_common."""
    tops = {found.split(".")[0] for found in imports(path, top_level_only=True)}
    assert tops & {"comfy_local", "comfy_worker"} == set()


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_pinned_http_opens_urls(path: Path) -> None:
    is_owner = module_name(path) == "comfy_common.pinned_http"
    assert is_owner or not imports(path) & {"urllib.request", "urllib3", "httpx"}


def test_nothing_is_called_utils() -> None:
    assert [path for path in SOURCES if "utils" in path.stem] == []
