"""The hand-written editor files against ComfyUI's own frontend: what the unit tests hold is what it exports."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from comfy_common.paths import REPO, comfyui_dir
from comfy_worker.workflow.node_defs import NodeDefs
from tests.editor_files import FILES
from tests.frontend import open_frontend, running_comfyui
from tests.tools import require

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

MADE = json.loads((REPO / "tests" / "unit" / "editor_files.json").read_text(encoding="utf-8"))
DEFS = NodeDefs(MADE["object_info"])


# The exports were recorded with frontend 1.32.9, that of ComfyUI 0.3.75. Frontend 1.49.6 reads these otherwise.
OTHERWISE = {
    "a reroute muted, and one bypassed",
    "a muted node for a widget",
    "a primitive in a subgraph",
    "a subgraph with a primitive outside",
    "a subgraph with an input that nothing feeds",
    "a class by its old name",
}


def test_the_frontend_exports_what_the_unit_tests_expect() -> None:
    require("chromium")
    with running_comfyui(comfyui_dir(os.environ)) as url, open_frontend(url) as frontend:
        exports = {name: declared(frontend.graph_to_prompt(file)) for name, file in FILES.items()}
    assert {name for name in FILES if exports[name] != declared(MADE["exports"][name])} == OTHERWISE


def declared(workflow: dict[str, Any]) -> dict[str, Any]:
    """A workflow without what differs by the frontend's version: default titles, and widgets of its own."""
    found = {}
    for node_id, node in workflow.items():
        class_type = node["class_type"]  # None where the frontend has no such class
        inputs = DEFS[class_type].inputs if class_type else ()
        found[node_id] = (class_type, {name: value for name, value in node["inputs"].items() if name in inputs})
    return found
