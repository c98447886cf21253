"""One worker behind the local endpoint for all tests of this level: the real handler, SDK loop and ComfyUI."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from comfy_setup.endpoint import LocalEndpoint
from tests import placeholders


class Client:
    """What a client of RunPod does, with the host swapped."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, route: str, body: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = requests.post(f"{self.url}/{route}", json=body, timeout=300).json()
        return answer

    def get(self, route: str) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{self.url}/{route}", timeout=30).json()
        return answer

    def runsync(self, job_input: Any) -> dict[str, Any]:
        """The finished job."""
        return self.post("runsync?wait=280000", {"input": job_input})

    def output(self, job_input: Any) -> dict[str, Any]:
        """The result of a job that must succeed."""
        job = self.runsync(job_input)
        assert job["status"] == "COMPLETED", job
        result: dict[str, Any] = job["output"]
        return result


def pictures(result: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(image["data"]))) for image in result["images"]]


@pytest.fixture(scope="session")
def worker(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The endpoint with one worker, up and ready."""
    log_path = tmp_path_factory.mktemp("worker") / "worker.log"
    environ = {**os.environ, "MODELS_DIR": str(model_root), "SD_MODEL": placeholders.CHECKPOINT}
    with LocalEndpoint(environ=environ, log_path=log_path) as endpoint:
        assert endpoint.wait_ready(300), log_path.read_text()
        yield Client(endpoint.url)
