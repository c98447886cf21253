"""A worker that runs a template once before its first job: the real handler, SDK and ComfyUI."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import serving

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_first_job_comes_after_the_warm_up(model_root: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"WARMUP": "txt2img", "PORT_HEALTH": str(port), "MIN_FREE_MEMORY_MB": "0"}
    with serving(model_root, tmp_path, **settings) as client:
        small = {"workflow": "txt2img", "width": 64, "height": 64, "steps": 1}
        assert len(client.output(small)["images"]) == 1
        log = (tmp_path / "worker.log").read_text()
        assert log.index("action=warm_up.done") < log.index("action=job.taken")
        assert "Requested to load SD1ClipModel" in log[: log.index("action=warm_up.done")]
        answer = requests.get(f"http://127.0.0.1:{port}/ping", timeout=10)
        assert (answer.status_code, answer.json()["state"]) == (200, "ready")
        assert "warm-up ended" in answer.json()["seconds"]
