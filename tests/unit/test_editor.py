"""Which files the editor's page gets, and which of them become templates."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.editor import SavedWorkflows, edit
from comfy_worker.errors import InvalidInput
from comfy_worker.planning.templates import Templates
from tests.editor_files import FILES
from tests.graphs import txt2img

UI_FORMAT = FILES["plain"]


def write(path: Path, value: Any, at: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    os.utime(path, ns=(at, at))


@pytest.fixture
def saved(tmp_path: Path) -> SavedWorkflows:
    saved = SavedWorkflows(tmp_path / "user", tmp_path / "workflows")
    saved.provide()
    return saved


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_saved_becomes_a_template(saved: SavedWorkflows, tmp_path: Path) -> None:
    write(saved.folder / "my poster (2).json", UI_FORMAT, 10)
    write(saved.folder / "sub" / "a.json", UI_FORMAT, 10)
    write(saved.folder / "cut.json", "", 10)
    written = [path.name for path in saved.copy_new()]
    assert written == ["my-poster-2.json", "sub-a.json"]
    assert names(tmp_path / "workflows") == written
    assert list(saved.copy_new()) == []
    write(saved.folder / "sub" / "a.json", {**UI_FORMAT, "version": 1}, 20)
    assert [path.name for path in saved.copy_new()] == ["sub-a.json"]
    assert json.loads((tmp_path / "workflows" / "sub-a.json").read_text())["version"] == 1


def test_the_newer_of_two_files_is_kept(saved: SavedWorkflows, tmp_path: Path) -> None:
    write(tmp_path / "workflows" / "a.json", UI_FORMAT, 30)
    write(tmp_path / "workflows" / "a.params.json", {}, 30)
    write(tmp_path / "workflows" / "api.json", txt2img(), 30)
    write(saved.folder / "a.json", {**UI_FORMAT, "version": 9}, 20)
    saved.provide()
    assert names(saved.folder) == ["a.json"]
    assert json.loads((saved.folder / "a.json").read_text()) == UI_FORMAT
    assert list(saved.copy_new()) == []


def test_a_removed_template_stays_removed(saved: SavedWorkflows, tmp_path: Path) -> None:
    write(saved.folder / "a.json", UI_FORMAT, 10)
    list(saved.copy_new())
    write(tmp_path / "workflows" / "b.json", UI_FORMAT, 10)
    saved.provide()
    for name in ("a.json", "b.json"):
        (tmp_path / "workflows" / name).unlink()
    write(saved.folder / "before-a-kill.json", UI_FORMAT, 10)
    saved.provide()
    assert [path.name for path in saved.copy_new()] == ["before-a-kill.json"]


def test_an_api_template_is_put_aside(saved: SavedWorkflows, tmp_path: Path) -> None:
    saved.provide_template("api", txt2img())
    assert names(saved.folder) == []
    assert names(tmp_path / "user" / "default") == ["api.json"]
    saved.provide_template("ui", UI_FORMAT)
    assert names(saved.folder) == ["ui.json"]


def test_a_port_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    options, templates = LaunchOptions(tmp_path), Templates([tmp_path])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port} cannot be used"):
            edit(options, "", port, tmp_path, templates)
    with pytest.raises(InvalidInput, match="from 1 to 65535, not 70000"):
        edit(options, "", 70000, tmp_path, templates)
