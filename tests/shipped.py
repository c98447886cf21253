"""The templates in `workflows/` as data for the tests, read with no code of the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
