"""A worker whose ComfyUI has bad nodes and stands behind a proxy that breaks things when told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from comfy_local.endpoint import app, local
from tests.e2e.conftest import Client, pictures, serving
from tests.e2e.faults.proxy import Proxy
from tests.graphs import node

PACKS = Path(__file__).parent / "packs"

# The limits of the shared worker are short; nothing that these tests run without a fault is silent for as long.
LIMITS = {
    "COMFY_SILENCE_LIMIT_S": "6",
    "COMFY_STALL_LIMIT_S": "15",
    "INTERRUPT_LIMIT_S": "4",
    "WORKER_CONCURRENCY": "8",
    "ALLOW_PRIVATE_URLS": "true",
}


class Mailbox:
    """RunPod's ear for results, which may refuse some.

    Attributes:
        refusals: how many of the next results are answered with HTTP 500.
    """

    def __init__(self) -> None:
        self.refusals = 0

    def before(self, app: Any) -> Any:
        """The endpoint's application behind this mailbox."""

        async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if "/job-done/" not in scope["path"] or not self.refusals:
                await app(scope, receive, send)
                return
            body = b""
            while (message := await receive()).get("more_body"):
                body += message["body"]
            if b'"IN_PROGRESS"' not in body + message["body"]:
                self.refusals -= 1
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return serve


class FaultyWorker(Client):
    """A worker with the node pack ``faults``, and methods for tests.

    Attributes:
        proxy: between the worker and its ComfyUI.
        mailbox: where its results arrive.
        log_path: everything that the worker and its ComfyUI wrote.
    """

    def __init__(self, client: Client, proxy: Proxy, mailbox: Mailbox) -> None:
        super().__init__(client.url, client.temp_dir)
        self.proxy = proxy
        self.mailbox = mailbox
        self.log_path = client.temp_dir / "worker.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def comfyui(self) -> psutil.Process:
        """The process of ComfyUI itself; waits for one that has started."""
        return wait_until(lambda: _comfyui_of(self.temp_dir))

    def handler(self) -> psutil.Process:
        """The process of the handler."""
        return next(
            child
            for child in psutil.Process().children(recursive=True)
            if "handler.py" in " ".join(_command(child))
            and _environ(child).get("TMPDIR") == str(self.temp_dir)
        )

    def kill_comfyui(self) -> int:
        """Kill a ComfyUI that is up; the process id that it had."""
        assert self.goes_on()
        process = self.comfyui()
        process.kill()
        return process.pid

    def submit(self, job_input: Any, **body: Any) -> str:
        """The id of a job that has been sent."""
        job_id: str = self.post("run", {"input": job_input, **body})["id"]
        return job_id

    def finished(self, job_id: str, timeout_s: float = 120) -> dict[str, Any]:
        """The job once it has ended."""

        def look() -> dict[str, Any] | None:
            job = self.get(f"status/{job_id}")
            return None if job["status"] in ("IN_QUEUE", "IN_PROGRESS") else job

        return wait_until(look, timeout_s)

    def failed(self, job_id: str) -> str:
        """The error of a job that must fail."""
        job = self.finished(job_id)
        assert job["status"] == "FAILED", job
        error: str = job["error"]
        return error

    def is_red(self, job_id: str) -> bool:
        """Whether a job ended with the picture of :func:`faulty_graph`."""
        job = self.finished(job_id)
        assert job["status"] == "COMPLETED", job
        (picture,) = pictures(job["output"])
        return picture.size == (64, 64) and picture.convert("RGB").getcolors() == [
            (64 * 64, (255, 0, 0))
        ]

    def goes_on(self) -> bool:
        """Run one more job. Returns whether it succeeds: the worker has survived the fault."""
        return self.is_red(
            self.submit({"workflow": faulty_graph("FaultSleep", seconds=0.0, heed=True)})
        )

    def running(self, class_type: str) -> str:
        """The id of the prompt with such a node; waits until it runs."""

        def look() -> str | None:
            rows = self.queue()["queue_running"]
            return next((row[1] for row in rows if class_type in json.dumps(row[2])), None)

        prompt_id: str = wait_until(look)
        return prompt_id

    def queue(self) -> dict[str, list[Any]]:
        """What ComfyUI's queue holds, asked without the proxy."""
        return direct(self.temp_dir, "queue")


def direct(temp_dir: Path, route: str) -> dict[str, Any]:
    """What the newest ComfyUI answers, asked without the proxy; nothing where it does not."""
    ports = max((temp_dir / "ports").glob("*.ports"), key=lambda path: path.stat().st_mtime_ns)
    try:
        url = f"http://127.0.0.1:{json.loads(ports.read_text())['inside']}/{route}"
        answer: dict[str, Any] = requests.get(url, timeout=10).json()
    except requests.RequestException:
        return {"queue_running": [], "queue_pending": []}
    return answer


def wait_until(look: Callable[[], Any], timeout_s: float = 60) -> Any:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def faulty_graph(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A small red picture through one of the bad nodes to the client; no model."""
    return {
        "image": node("EmptyImage", width=64, height=64, batch_size=1, color=0xFF0000),
        "fault": node(class_type, image=["image", 0], **inputs),
        "save": node("SaveImage", images=["fault", 0], filename_prefix="fault"),
    }


@contextmanager
def faulty_worker(model_root: Path, folder: Path, **settings: str) -> Iterator[FaultyWorker]:
    """A worker of these settings with the node pack and the proxy, up and ready."""
    mailbox = Mailbox()
    ports = folder / "ports"
    ports.mkdir()
    packs = folder / "packs.yaml"
    packs.write_text(json.dumps({"faults": {"custom_nodes": str(PACKS)}}))  # JSON is YAML
    args = f"{settings.pop('COMFY_ARGS', '')} --extra-model-paths-config {packs}"
    with pytest.MonkeyPatch.context() as patch, Proxy(ports) as proxy:
        create_app = local.create_app
        patch.setattr(local, "create_app", lambda *args: mailbox.before(create_app(*args)))
        patch.setattr(app, "POLL_HOLD_S", 1.0)
        environ = {"COMFY_ARGS": args, "TEST_PROXY_DIR": str(ports), **settings}
        with serving(model_root, folder, **environ) as client:
            yield FaultyWorker(client, proxy, mailbox)


@pytest.fixture(scope="package")
def faulty(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyWorker]:
    """The worker that the tests of this folder share."""
    with faulty_worker(model_root, tmp_path_factory.mktemp("faulty"), **LIMITS) as worker:
        yield worker


@pytest.fixture(scope="package")
def unkind_faulty(
    model_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyWorker]:
    """Such a worker whose endpoint answers every fifth of its requests with a fault."""
    folder = tmp_path_factory.mktemp("unkind-faulty")
    with faulty_worker(model_root, folder, UNKIND="0.2", **LIMITS) as worker:
        yield worker


@pytest.fixture(params=["faulty", "unkind_faulty"])
def any_faulty(request: pytest.FixtureRequest) -> FaultyWorker:
    """Either of the two: for tests that must hold behind both endpoints."""
    worker: FaultyWorker = request.getfixturevalue(request.param)
    return worker


def _comfyui_of(temp_dir: Path) -> psutil.Process | None:
    for child in psutil.Process().children(recursive=True):
        command = _command(child)
        if command[1:2] == ["main.py"] and any(str(temp_dir) in word for word in command):
            return child
    return None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
