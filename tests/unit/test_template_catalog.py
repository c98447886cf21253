"""The list of templates with their schemas, from the definitions of ComfyUI's own classes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from comfy_common.page_catalog import CATALOG_VARIABLE
from comfy_worker.comfyui.supervisor import ComfyUISupervisor
from comfy_worker.planning.templates import Templates
from comfy_worker.settings import Settings
from comfy_worker.template_catalog import keep_catalog, template_catalog
from comfy_worker.workflow.node_defs import NodeDefs
from tests import shipped
from tests.newer_classes import object_info

DEFS = NodeDefs(object_info())


@pytest.fixture(scope="module")
def catalog() -> dict[str, Any]:
    return template_catalog(Settings.from_env(os.environ), Templates([shipped.WORKFLOWS]), DEFS)


def rows(catalog: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in catalog["templates"]}


def test_every_template_has_a_form(catalog: dict[str, Any]) -> None:
    assert list(rows(catalog)) == shipped.NAMES
    for row in catalog["templates"]:
        assert row["schema"]["properties"]["workflow"] == {"const": row["name"]}
        assert set(row["nodes"]) >= {
            target.split(".")[0] for targets in row["inputs"].values() for target in targets
        }


@pytest.mark.parametrize(
    ("name", "result", "media"),
    [
        ("txt2img", "image", {}),
        ("wan22-flf2v", "video", {"image": "image", "last_image": "image"}),
        ("seedvr2-upscale-video", "video", {"image": "video"}),
        ("ace-step", "audio", {}),
    ],
)
def test_files_and_results_are_known(
    catalog: dict[str, Any], name: str, result: str, media: dict[str, str]
) -> None:
    row = rows(catalog)[name]
    assert row["result"] == result
    assert {key: row["media"].get(key) for key in media} == media


def test_samplers_and_schedulers_are_listed(catalog: dict[str, Any]) -> None:
    assert "euler" in catalog["samplers"]
    assert "karras" in catalog["schedulers"]
    assert set(catalog["files"]) == {"checkpoints", "controlnet", "loras", "vae"}


def test_a_broken_template_is_listed(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (row,) = template_catalog(Settings.from_env(os.environ), Templates([tmp_path]), DEFS)[
        "templates"
    ]
    assert row["broken"]
    assert "bad.json cannot be read" in row["description"]


def test_the_file_is_written_anew_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_worker.template_catalog.LOOK_S", 0.02)
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    refreshed: list[bool] = []
    running = SimpleNamespace(defs=DEFS, refresh=lambda: refreshed.append(True))
    comfyui = cast(ComfyUISupervisor, SimpleNamespace(ready=lambda _deadline: running))
    file = tmp_path / "catalog.json"
    settings = Settings.from_env({**os.environ, "MODELS_DIR": str(tmp_path)})
    keep_catalog(settings, comfyui, Templates([workflows]), {CATALOG_VARIABLE: str(file)})
    while not file.exists():
        pass
    assert json.loads(file.read_text())["templates"] == []
    (workflows / "mine.json").write_text(shipped.graph_text("txt2img"))
    while not json.loads(file.read_text())["templates"]:
        pass
    assert refreshed


def test_nothing_is_written_without_the_variable(tmp_path: Path) -> None:
    comfyui = cast(ComfyUISupervisor, SimpleNamespace())
    keep_catalog(Settings.from_env(os.environ), comfyui, Templates([tmp_path]), {})
    assert list(tmp_path.iterdir()) == []
