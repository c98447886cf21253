"""The hand-written editor files against ComfyUI's own frontend: what the unit tests hold is what it exports."""

from __future__ import annotations

import json
import os
import urllib.request
from importlib.metadata import version
from typing import Any

import pytest

from comfy_common.paths import REPO, comfyui_dir
from comfy_worker.workflow.node_defs import NodeDefs
from tests.editor_files import FILES
from tests.editor_files_033 import FILES_033, PRIMITIVE_OUTSIDE, RECORDED_033
from tests.frontend import open_frontend, running_comfyui
from tests.tools import require

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

MADE = json.loads((REPO / "tests" / "unit" / "editor_files.json").read_text(encoding="utf-8"))
MADE_033 = json.loads(RECORDED_033.read_text(encoding="utf-8"))
# The frontend that is installed; it may be newer than the one that came with this ComfyUI.
FRONTEND_VERSION = tuple(int(part) for part in version("comfyui-frontend-package").split(".")[:2])
DEFS = NodeDefs({**MADE_033["object_info"], **MADE["object_info"]})


def without_titles(export: dict[str, Any]) -> dict[str, Any]:
    """The nodes of an export with the inputs that are recorded as declared."""
    nodes = {}
    for node_id, node in export.items():
        declared = DEFS[node["class_type"]].inputs
        inputs = {
            name: value for name, value in node["inputs"].items() if name.split(".")[0] in declared
        }
        nodes[node_id] = (node["class_type"], inputs)
    return nodes


def test_the_frontend_exports_what_unit_tests_expect() -> None:
    require("chromium")
    files, exports = dict(FILES), dict(MADE["exports"])
    compared = 0
    with running_comfyui(comfyui_dir(os.environ)) as url, open_frontend(url) as frontend:
        if FRONTEND_VERSION >= (1, 43):
            exports[PRIMITIVE_OUTSIDE] = MADE_033["exports"][PRIMITIVE_OUTSIDE]
        with urllib.request.urlopen(f"{url}/object_info") as answer:
            if NodeDefs(json.load(answer)).has_unique_subgraph_ids:
                # What an older ComfyUI lacks, declares otherwise or exports otherwise.
                files |= FILES_033
                exports |= MADE_033["exports"]
        for name, file in files.items():
            export = frontend.graph_to_prompt(file)
            if any(node["class_type"] is None for node in export.values()):
                continue  # this ComfyUI lacks a class of the file
            assert without_titles(export) == without_titles(exports[name]), name
            compared += 1
    assert compared > len(FILES) / 2
