"""The templates in `workflows/` as data for the tests, read with no code of the worker."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from comfy_common import paths

REPO = Path(__file__).absolute().parent.parent
WORKFLOWS = REPO / "workflows"
NAMES = sorted(
    path.stem for path in WORKFLOWS.glob("*.json") if not path.name.endswith(".params.json")
)


def graph_text(name: str) -> str:
    """Read a template's file as it is."""
    return (WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")


def graph(name: str) -> dict[str, Any]:
    """Read a template's graph, in API format."""
    loaded: dict[str, Any] = json.loads(graph_text(name))
    return loaded


def params(name: str) -> dict[str, Any]:
    """Read what a template's `params.json` adds."""
    loaded: dict[str, Any] = json.loads(
        (WORKFLOWS / f"{name}.params.json").read_text(encoding="utf-8")
    )
    return loaded


def comfyui_version() -> tuple[int, ...]:
    """Read the version of the ComfyUI that the tests run."""
    folder = paths.comfyui_dir(os.environ)
    text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
    return _numbers(text[text.index('"') :])


def runs_with(name: str, version: tuple[int, ...]) -> bool:
    """Whether a ComfyUI of this version runs a template itself."""
    return _numbers(params(name).get("requirements", {}).get("comfyui", "0")) <= version


def runs_here(name: str) -> bool:
    """Whether the ComfyUI of the tests runs a template itself."""
    return runs_with(name, comfyui_version())


def file_parameters(name: str) -> dict[str, str]:
    """List a template's own parameters that take a file, with the class of their node."""
    loaded = {}
    for key, entry in params(name).get("parameters", {}).items():
        class_type = graph(name)[entry["node"]]["class_type"]
        if class_type in ("LoadImage", "LoadVideo"):
            loaded[key] = class_type
    return loaded


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", text)[:3])
