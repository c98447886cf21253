"""What a workflow made, on its way to the client."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_worker.comfyui.events import Executed
from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.job import Job
from comfy_worker.job_record import JobRecord
from comfy_worker.planning.plan import Plan
from comfy_worker.request.schema import Output
from comfy_worker.response.client_updates import ClientUpdates
from comfy_worker.response.deliver import MB, Delivery
from comfy_worker.response.results import ResultBuilder
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import DEFS, txt2img

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
REPORTED = {
    "images": [{"filename": "a.png", "subfolder": "", "type": "output", "raw_shape": [4, 4, 3]}]
}


def builder(folder: Path, delivery: Delivery, job: Job) -> ResultBuilder:
    plan = Plan(
        txt2img(), "custom", 7, {}, ["strength is ignored"], find_roles(txt2img(), DEFS), (), ()
    )
    process: Any = SimpleNamespace(output_dir=folder, temp_dir=folder)
    return ResultBuilder(job, plan, process, delivery, {}, JobRecord())


@pytest.mark.parametrize("streamed", [0, MB], ids=["small", "too-large-to-be-sent-twice"])
def test_streamed_files_are_not_encoded_again(tmp_path: Path, streamed: int) -> None:
    delivery = Delivery("job", Output(), None, 2 * MB, streaming=True)
    delivery.streamed = streamed
    job = Job("job", is_stream=True)
    results = builder(tmp_path, delivery, job)
    updates: list[Any] = []
    PIXELS.tofile(tmp_path / "a.png")
    sender = ClientUpdates(job, delivery, updates.append)
    sender.send_outputs(Executed("prompt", "save", REPORTED), results)
    assert len(updates) == (0 if streamed else 1)
    np.zeros_like(PIXELS).tofile(tmp_path / "a.png")
    (image,) = results.build(ExecutionResult({"save": REPORTED}), "job")["images"]
    assert Image.open(io.BytesIO(base64.b64decode(image["data"]))).tobytes() == PIXELS.tobytes()
    assert not (tmp_path / "a.png").exists()


def test_shapes_without_warnings_log_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PIXELS.tofile(tmp_path / "a.png")
    delivery = Delivery("job", Output(), None, 2 * MB, streaming=False)
    results = builder(tmp_path, delivery, Job("job"))
    with caplog.at_level(logging.DEBUG, "comfy_worker.response.results"):
        results.build(ExecutionResult({"save": REPORTED}), "job")
    assert caplog.messages == ["strength is ignored"]


def test_files_follow_the_order_of_the_graph(tmp_path: Path) -> None:
    nodes = list(txt2img())
    outputs = {}
    for node_id in ["unknown", nodes[3], nodes[1]]:
        PIXELS.tofile(tmp_path / f"{node_id}.png")
        file = {**REPORTED["images"][0], "filename": f"{node_id}.png"}
        outputs[node_id] = {"images": [file]}
    delivery = Delivery("job", Output(), None, 2 * MB, streaming=False)
    result = builder(tmp_path, delivery, Job("job")).build(ExecutionResult(outputs), "job")
    assert [image["node_id"] for image in result["images"]] == [nodes[1], nodes[3], "unknown"]
