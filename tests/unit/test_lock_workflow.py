"""`check WORKFLOW --lock`: from a workflow file to what an image with it needs."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from comfy_common import node_map, paths
from comfy_common.console import Console
from comfy_common.models_txt import parse_models
from comfy_setup import cli, lock_workflow, models, node_packs, packages
from comfy_worker.__main__ import main as worker
from tests.core_nodes import OBJECT_INFO
from tests.graphs import node
from tests.pack_registry import Registry, registry
from tests.pack_workflows import CLASSES, COMMIT, GGUF, LORA, WORKFLOWS, publish_packs

__all__ = ["registry"]

MODELS_TXT = "[mine]\ncheckpoints/mine.safetensors  https://example.org/mine.safetensors\n"


@pytest.fixture
def folder(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with ComfyUI's own nodes, a custom_nodes.txt, a models.txt, a local registry."""
    monkeypatch.setattr(node_packs, "LIST", tmp_path / "custom_nodes.txt")
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    monkeypatch.setattr(node_map, "NODE_MAP", tmp_path / "node_map.json")
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(packages, "INSTALLED", tmp_path / "installed.txt")
    monkeypatch.setenv("COMFY_REGISTRY_URL", registry.url)
    monkeypatch.setenv("COMFY_NODE_MAP_URL", f"{registry.url}/manager")
    monkeypatch.setenv("VOLUME_DIR", str(tmp_path / "volume"))
    (tmp_path / "custom_nodes.txt").write_text("# packs\n")
    (tmp_path / "models.txt").write_text(models_text())
    (tmp_path / "before.json").write_text(json.dumps(OBJECT_INFO))
    (tmp_path / "after.json").write_text(json.dumps({**OBJECT_INFO, **CLASSES}))
    return tmp_path


def models_text() -> str:
    url = f"https://huggingface.co/o/r/resolve/main/{LORA}"
    return f"{MODELS_TXT}\n[h3]\nloras/{LORA}  {url}\n"


def lock(folder: Path, name: str, workflow: Any) -> int:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(workflow), encoding="utf-8")
    info = str(folder / "before.json")
    return cli.main(["check", str(file), "--object-info", info, "--lock"])


def packs(folder: Path) -> list[str]:
    return (folder / "custom_nodes.txt").read_text().splitlines()[1:]


@pytest.fixture
def github(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local stand-in for GitHub with one repository; gives its newest commit."""
    made = folder / "github" / "someone" / "blend-nodes"
    made.mkdir(parents=True)
    git = ["git", "-C", str(made), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["commit", "-qm", "1", "--allow-empty"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{folder}/github/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    return head.stdout.strip()


def test_five_workflows_are_locked_and_pass(
    folder: Path, registry: Registry, github: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_packs(registry)
    assert cli.main(["nodes", "map"]) == 0
    files = folder / "workflows"
    files.mkdir()
    for name, workflow in WORKFLOWS.items():
        assert worker(["check", _written(files, name, workflow), *_info(folder, "before")]) == 1
    code = cli.main(["check", str(files), *_info(folder, "before"), "--lock"])
    assert code == 0, capsys.readouterr().err
    assert sorted(packs(folder)) == [
        "comfyui-kjnodes@1.1.9",
        "comfyui_controlnet_aux@1.1.3",
        f"https://github.com/city96/ComfyUI-GGUF@{COMMIT}",
        f"https://github.com/someone/blend-nodes@{github}",
        "rgthree-comfy@1.0.5",
    ]
    written = parse_models((folder / "models.txt").read_text())
    assert {entry.path for entry in written if entry.section in WORKFLOWS} == {
        f"diffusion_models/{GGUF}",
        f"loras/{LORA}",
    }
    assert worker(["check", str(files), *_info(folder, "after")]) == 0


def _written(folder: Path, name: str, workflow: Any) -> str:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(workflow), encoding="utf-8")
    return str(file)


def _info(folder: Path, name: str) -> list[str]:
    return ["--object-info", str(folder / f"{name}.json")]


def test_locking_again_changes_nothing(folder: Path, registry: Registry) -> None:
    publish_packs(registry)
    for _ in range(2):
        assert lock(folder, "resize", WORKFLOWS["resize"]) == 0
        assert lock(folder, "gguf", WORKFLOWS["gguf"]) == 0
    assert packs(folder) == [
        "comfyui-kjnodes@1.1.9",
        f"https://github.com/city96/ComfyUI-GGUF@{COMMIT}",
    ]
    text = (folder / "models.txt").read_text()
    assert text.startswith(models_text())
    assert text.count("[gguf]") == 1
    assert text.count(GGUF) == 2


def test_the_newest_version_replaces_a_lost_one(folder: Path, registry: Registry) -> None:
    registry.publish("comfyui-kjnodes", "2.0.0", {})
    assert lock(folder, "resize", WORKFLOWS["resize"]) == 0
    assert packs(folder) == ["comfyui-kjnodes@2.0.0"]


def test_what_is_missing_becomes_a_comment(
    folder: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = {
        "1": node("NobodyHasIt", model="lost.safetensors"),
        "4": node("Line\nbreak@1.0.0", model="up.safetensors\n[x] y z.safetensors"),
        "2": node("LoraLoader", lora_name="my style.safetensors"),
        "3": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    for _ in range(2):
        assert lock(folder, "mine", graph) == 1
    text = (folder / "custom_nodes.txt").read_text()
    assert text.count("# missing for mine.json: node class NobodyHasIt: no node pack") == 1
    written = (folder / "models.txt").read_text()
    assert MODELS_TXT in written
    assert "[mine-workflow]  # written by `check --lock` from mine.json" in written
    assert (
        "# missing: FOLDER/lost.safetensors: write `FOLDER/lost.safetensors  URL` here" in written
    )
    assert written.count("my style.safetensors") == 2
    assert "mine.json: missing: node class NobodyHasIt" in capsys.readouterr().err
    parse_models(written)
    node_packs.parse_packs(text)


def test_a_name_that_models_txt_cannot_hold(folder: Path) -> None:
    report = {
        "nodes": [],
        "needs": [
            {"folder": "loras", "file": "a b.safetensors", "url": "https://example.org/a"},
            {"folder": "loras", "file": "../up.safetensors", "url": "https://example.org/b"},
            {"folder": "loras", "file": "c.safetensors", "url": "https://example.org/c\nx/y z"},
        ],
    }
    console = Console(io.StringIO())
    assert lock_workflow.lock_reports(console, {"w.json": report}, {}) == 1
    text = (folder / "models.txt").read_text()
    assert [entry for entry in parse_models(text) if entry.section == "w"] == []


def test_a_forbidden_pack_becomes_a_comment(folder: Path, registry: Registry) -> None:
    registry.publish("comfyui-kjnodes", "1.1.9", {}, dependencies=["pytest<2"])
    packages.INSTALLED.write_text("pytest==9.0.0\n")
    assert lock(folder, "resize", WORKFLOWS["resize"]) == 1
    [line] = packs(folder)
    assert line.startswith(
        "# missing for resize.json: node class ImageResizeKJv2: comfyui-kjnodes@1.1.9 requires "
        "pytest<2, and the worker needs pytest"
    )


def test_without_a_registry_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_REGISTRY_URL", "http://127.0.0.1:9")
    assert lock(folder, "gguf", WORKFLOWS["gguf"]) == 1
    assert "the registry of node packs does not answer" in capsys.readouterr().err
    assert packs(folder) == []
    assert (folder / "models.txt").read_text() == models_text()


def test_a_file_that_is_no_workflow(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lock(folder, "odd", []) == 1
    assert "odd.json: INVALID_WORKFLOW" in capsys.readouterr().err


def test_the_worker_itself_locks_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _written(folder, "resize", WORKFLOWS["resize"])
    assert worker(["check", file, *_info(folder, "before"), "--lock"]) == 1
    assert "--lock is an option of `python3 -m comfy_setup check`" in capsys.readouterr().err
