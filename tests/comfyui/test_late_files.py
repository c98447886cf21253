"""A model file that arrives after ComfyUI was asked for its lists counts for the next job."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings
from tests import placeholders
from tests.comfyui.conftest import TEMPLATES, RealComfyUI
from tests.graphs import txt2img

pytestmark = pytest.mark.comfyui


def test_a_lora_that_has_just_arrived_is_found(comfyui: RealComfyUI, model_root: Path) -> None:
    runner = JobRunner(Settings.from_env({}), comfyui.supervisor, TEMPLATES)
    job = {"id": "late", "input": {"workflow": txt2img(), "loras": [{"name": "just-arrived"}]}}
    assert runner.run(job, threading.Event())["error"].startswith(
        "MODEL_NOT_FOUND: lora 'just-arrived'"
    )
    late = model_root / "loras" / "just-arrived.safetensors"
    try:
        shutil.copy(model_root / "loras" / placeholders.LORA, late)
        assert len(runner.run(job, threading.Event())["images"]) == 1
    finally:
        late.unlink(missing_ok=True)
        comfyui.running.refresh()
