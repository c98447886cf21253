"""The shipped templates against ComfyUI's own frontend: opened and exported again, each gives its own file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common.paths import comfyui_dir
from tests import shipped
from tests.frontend import Frontend, open_frontend, running_comfyui
from tests.tools import require

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]


@pytest.fixture(scope="module")
def frontend() -> Iterator[Frontend]:
    require("chromium")
    with running_comfyui(comfyui_dir(os.environ)) as url, open_frontend(url) as page:
        yield page


@pytest.mark.parametrize("name", shipped.NAMES)
def test_templates_survive_opening_and_exporting(frontend: Frontend, name: str) -> None:
    frontend.load(shipped.graph(name))
    assert frontend.export_api() == shipped.graph_text(name)


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
