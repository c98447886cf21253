"""Below a floor of memory or disk no job starts."""

from __future__ import annotations

import threading

import pytest

from comfy_worker.comfyui import resources as room
from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings
from tests.comfyui.conftest import TEMPLATES, RealComfyUI
from tests.graphs import txt2img

pytestmark = pytest.mark.comfyui


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (Settings(min_free_memory_mb=1e9), "OUT_OF_MEMORY: the worker has"),
        (Settings(min_free_disk_mb=1e12), "DISK_FULL: the worker's disk has"),
    ],
)
def test_a_job_is_not_begun_without_room(
    comfyui: RealComfyUI, monkeypatch: pytest.MonkeyPatch, settings: Settings, error: str
) -> None:
    monkeypatch.setattr(room, "SETTLE_S", 0.2)
    monkeypatch.setattr(type(comfyui.running), "execute", lambda *_: pytest.fail("it was queued"))
    runner = JobRunner(settings, comfyui.supervisor, TEMPLATES)
    answer = runner.run({"id": "1", "input": {"workflow": txt2img()}}, threading.Event())
    assert answer["error"].startswith(error)
