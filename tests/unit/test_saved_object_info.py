"""The saved /object_info: when a command may use it in place of ComfyUI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from comfy_common import paths
from comfy_worker import __main__ as program
from comfy_worker.saved_object_info import SavedObjectInfo
from comfy_worker.settings import Settings
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import DEFS


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a ComfyUI with one folder of models."""
    comfyui = tmp_path / "comfyui"
    (comfyui / "models" / "loras").mkdir(parents=True)
    (comfyui / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    monkeypatch.setenv("COMFYUI_DIR", str(comfyui))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return Settings.from_env(os.environ)


def saved(settings: Settings) -> SavedObjectInfo:
    return SavedObjectInfo(paths.CACHE, settings)


def set_time(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder, ns=(1, 1))


def test_definitions_are_kept_until_something_changes(settings: Settings, tmp_path: Path) -> None:
    assert saved(settings).read() is None
    saved(settings).write(DEFS)
    read = saved(settings).read()
    assert read is not None
    assert set(read) == set(DEFS)
    assert read["KSampler"] == DEFS["KSampler"]
    assert 0 <= saved(settings).age_s() < 600
    for folder in ("comfyui/models/loras", "models/checkpoints", "comfyui/custom_nodes/pack"):
        set_time(tmp_path / folder)
        assert saved(settings).read() is None
        saved(settings).write(DEFS)
        assert saved(settings).read() is not None
    (tmp_path / "comfyui" / "comfyui_version.py").write_text('__version__ = "0.34.0"\n')
    assert saved(settings).read() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint": 1}'])
def test_a_broken_file_counts_as_none(settings: Settings, text: str) -> None:
    saved(settings).path.parent.mkdir(parents=True)
    saved(settings).path.write_text(text)
    assert saved(settings).read() is None


def test_commands_say_how_old_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Instance:
        defs = DEFS
        validate = None

    class Supervisor:
        booted = 0

        def __init__(self, *_: Any) -> None: ...

        def ready(self, _deadline: Any) -> Instance:
            Supervisor.booted += 1
            return Instance()

        def close(self) -> None: ...

    monkeypatch.setattr(program, "ComfyUISupervisor", Supervisor)
    outputs = []
    for more in ([], [], ["--fresh"]):
        assert program.main(["schema", "txt2img", *more]) == 0
        out, err = capsys.readouterr()
        outputs.append(out)
        uses_saved = "that this ComfyUI gave 0." in err
        assert uses_saved == (Supervisor.booted == 1 and len(outputs) == 2)
        assert ("Starting ComfyUI" in err) != uses_saved
    assert Supervisor.booted == 2
    assert outputs[0] == outputs[1] == outputs[2]
    assert "steps" in json.loads(outputs[0])["properties"]
    program.main(["check", "workflows/txt2img.json"])
    assert "With --fresh, ComfyUI is started" in capsys.readouterr().err


def test_ctrl_c_while_it_starts_is_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = []

    class Supervisor:
        def __init__(self, *_: Any) -> None: ...

        def ready(self, _deadline: Any) -> NodeDefs:
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(program, "ComfyUISupervisor", Supervisor)
    assert program.main(["schema", "txt2img"]) == 130
    assert closed
    assert capsys.readouterr().err.endswith("Stopped.\n")
