"""One worker behind the local endpoint for all tests of this level: the real handler, SDK loop and ComfyUI."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from comfy_local.endpoint import LocalEndpoint
from comfy_local.toy_model.files import install_toy
from tests import placeholders


class Client:
    """What a client of RunPod does, with the host swapped."""

    def __init__(self, url: str, temp_dir: Path = Path()) -> None:
        self.url = url
        self.temp_dir = temp_dir

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


@contextmanager
def serving(model_root: Path, folder: Path, **settings: str) -> Iterator[Client]:
    """An endpoint with one worker of these settings, up and ready; its log goes into ``worker.log``."""
    log_path = folder / "worker.log"
    environ = {
        **os.environ,
        "MODELS_DIR": str(model_root),
        "SD_MODEL": placeholders.CHECKPOINT,
        "TMPDIR": str(folder),
        **settings,
    }
    with LocalEndpoint(environ=environ, log_path=log_path) as endpoint:
        assert endpoint.wait_ready(300), log_path.read_text()
        yield Client(endpoint.url, folder)


@pytest.fixture(scope="session")
def worker(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The worker that most tests share, with the settings as they are by themselves."""
    with serving(model_root, tmp_path_factory.mktemp("worker")) as client:
        yield client


@pytest.fixture(scope="session")
def toy_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A worker without a real checkpoint, as `serve` starts it in a fresh clone."""
    folder = tmp_path_factory.mktemp("toy")
    install_toy(folder / "models")
    with serving(folder / "models", folder, SD_MODEL="") as client:
        yield client


@pytest.fixture(scope="session")
def unkind_worker(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A worker whose endpoint answers every fifth of its requests with a fault."""
    with serving(model_root, tmp_path_factory.mktemp("unkind"), UNKIND="0.2") as client:
        yield client


@pytest.fixture(params=["worker", "unkind_worker"])
def any_worker(request: pytest.FixtureRequest) -> Client:
    """Either of the two: for tests that must hold behind both endpoints."""
    client: Client = request.getfixturevalue(request.param)
    return client


def comfyuis() -> dict[str, list[Path]]:
    """Every ComfyUI that runs below this process, by its URL, and the folders that jobs use."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.NoSuchProcess:  # it has just ended
            continue
        if "--input-directory" in command:
            root = Path(command[command.index("--input-directory") + 1]).parent
            raw_dir = child.environ().get("COMFY_WORKER_RAW_DIR")
            folders = [root / name for name in ("input", "output", "temp")] + (
                [Path(raw_dir)] if raw_dir else []
            )
            found[f"http://127.0.0.1:{command[command.index('--port') + 1]}"] = folders
    return found


def left_behind() -> list[str]:
    """What ComfyUI still holds of any job: its queue, its history, its folders."""
    found = []
    for url, folders in comfyuis().items():
        try:
            queue = requests.get(f"{url}/queue", timeout=10).json()
            history = requests.get(f"{url}/history", timeout=10).json()
        except requests.RequestException:  # it boots, or ends
            found.append(f"{url} does not answer")
            continue
        found += [f"queue: {entry[1]}" for entries in queue.values() for entry in entries]
        found += [f"history: {prompt_id}" for prompt_id in history]
        # os.walk passes over what is removed meanwhile.
        walked = (entry for folder in folders for entry in os.walk(folder))
        found += [f"{root}/{name}" for root, *names in walked for row in names for name in row]
    return [
        entry for entry in found if not entry.endswith("/input/3d")
    ]  # ComfyUI's own, made whenever it is asked


@pytest.fixture(scope="session")
def reported_leftovers() -> set[str]:
    """What was found after an earlier test, and is that test's fault alone."""
    return set()


@pytest.fixture(autouse=True)
def nothing_of_a_job_stays(reported_leftovers: set[str]) -> Iterator[None]:
    """After every test the folders, the queue and the history of ComfyUI are empty."""
    yield
    deadline = time.monotonic() + 60
    while left := set(left_behind()) - reported_leftovers:
        if time.monotonic() >= deadline:
            reported_leftovers |= left
            pytest.fail(f"a job left {sorted(left)}")
        time.sleep(0.2)
