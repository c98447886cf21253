"""The shipped templates against ComfyUI's own frontend: opened and exported again, each gives its own file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_common.paths import comfyui_dir
from tests import shipped
from tests.frontend import NEWER_PACKS, Frontend, open_frontend, running_comfyui
from tests.newer_classes import NEWER_CLASSES
from tests.tools import require

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]


# The templates are exports of this version. An older one leaves out inputs that it does not have.
EXPORTED_BY = (0, 33, 0)
IS_CURRENT = shipped.comfyui_version() >= EXPORTED_BY
# A current one exports newer templates too, since a node pack declares their classes.
NAMES = [name for name in shipped.NAMES if IS_CURRENT or shipped.runs_here(name)]


@pytest.fixture(scope="module")
def comfyui_url() -> Iterator[str]:
    require("chromium")
    node_packs = NEWER_PACKS if IS_CURRENT else None
    with running_comfyui(comfyui_dir(os.environ), node_packs) as url:
        yield url


@pytest.fixture(scope="module")
def frontend(comfyui_url: str) -> Iterator[Frontend]:
    with open_frontend(comfyui_url) as page:
        yield page


@pytest.fixture(scope="module")
def object_info(comfyui_url: str) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{comfyui_url}/object_info", timeout=30).json()
    return answer


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_exported_unchanged(
    frontend: Frontend, object_info: dict[str, Any], name: str
) -> None:
    frontend.load(shipped.graph(name))
    exported = frontend.export_api()
    if IS_CURRENT:
        assert exported == shipped.graph_text(name)
    else:
        assert json.loads(exported) == declared_inputs(shipped.graph(name), object_info)


def test_newer_classes_are_declared_as_recorded(object_info: dict[str, Any]) -> None:
    declared = {
        class_type: object_info[class_type]
        for class_type in NEWER_CLASSES
        if class_type in object_info
    }
    assert declared == (NEWER_CLASSES if IS_CURRENT else {})


def declared_inputs(graph: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Keep the inputs that the classes of this ComfyUI have."""
    kept = {}
    for node_id, node in graph.items():
        groups = object_info[node["class_type"]]["input"]
        names = {*groups.get("required", {}), *groups.get("optional", {})}
        inputs = {name: value for name, value in node["inputs"].items() if name in names}
        kept[node_id] = {**node, "inputs": inputs}
    return kept


def test_the_editor_format_opens_too(frontend: Frontend) -> None:
    node = {
        "id": 7,
        "type": "EmptyLatentImage",
        "pos": [0, 0],
        "size": [200, 100],
        "widgets_values": [64, 32, 1],
    }
    frontend.load(
        {"nodes": [node], "links": [], "version": 0.4, "last_node_id": 7, "last_link_id": 0}
    )
    assert json.loads(frontend.export_api())["7"]["inputs"] == {
        "width": 64,
        "height": 32,
        "batch_size": 1,
    }


def test_workflows_that_the_frontend_refuses_are_errors(frontend: Frontend) -> None:
    with pytest.raises(AssertionError, match="NoSuchNode"):
        frontend.load({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_a_comfyui_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit('no torch here')", encoding="utf-8")
    with pytest.raises(AssertionError, match="no torch here"), running_comfyui(tmp_path):
        pass
