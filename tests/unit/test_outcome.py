"""What a workflow made, on its way to the client."""

from __future__ import annotations

import base64
import io
import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_worker.comfyui.events import Executed
from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.deadline import Clock, Stop
from comfy_worker.planning.planner import Plan
from comfy_worker.request.schema import Output
from comfy_worker.response.builder import Outcome
from comfy_worker.response.deliver import MB, Delivery
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import DEFS, txt2img

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
REPORTED = {"images": [{"filename": "a.png", "subfolder": "", "type": "output", "raw_shape": [4, 4, 3]}]}


def outcome(folder: Path, delivery: Delivery) -> Outcome:
    plan = Plan(txt2img(), "custom", 7, {}, ["strength is ignored"], find_roles(txt2img(), DEFS), (), ())
    process: Any = SimpleNamespace(output_dir=folder, temp_dir=folder)
    return Outcome(plan, process, delivery, Output(), {}, lambda result: result.model_dump(exclude_none=True))


@pytest.mark.parametrize("streamed", [0, MB], ids=["small", "too-large-to-be-sent-twice"])
def test_what_was_made_ready_for_the_stream_is_not_encoded_again(tmp_path: Path, streamed: int) -> None:
    delivery = Delivery("job", Output(), None, 2 * MB, streaming=True)
    delivery.streamed = streamed
    made = outcome(tmp_path, delivery)
    told: list[Any] = []
    PIXELS.tofile(tmp_path / "a.png")
    made.tell(Executed("prompt", "save", REPORTED), told.append)
    assert len(told) == (0 if streamed else 1)
    np.zeros_like(PIXELS).tofile(tmp_path / "a.png")
    (image,) = made.result(ExecutionResult({"save": REPORTED}), Clock(Stop(threading.Event())), "job")["images"]
    assert Image.open(io.BytesIO(base64.b64decode(image["data"]))).tobytes() == PIXELS.tobytes()
    assert not (tmp_path / "a.png").exists()


def test_warnings_are_logged_for_the_shapes_that_have_no_place_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PIXELS.tofile(tmp_path / "a.png")
    made = outcome(tmp_path, Delivery("job", Output(), None, 2 * MB, streaming=False))
    with caplog.at_level(logging.DEBUG, "comfy_worker.response.builder"):
        made.result(ExecutionResult({"save": REPORTED}), Clock(Stop()), "job")
    assert caplog.messages == ["strength is ignored"]
