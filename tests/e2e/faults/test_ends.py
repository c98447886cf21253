"""A job that must end early, in each stage: cancelled, or out of time; and a worker that must."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfy_local.endpoint.job import Job
from comfy_local.endpoint.jobs import Jobs
from comfy_worker.comfyui.workdirs import PREFIX
from tests.e2e.faults.conftest import FaultyWorker, faulty_graph, wait_until
from tests.file_server import FileServer, file_server
from tests.graphs import node

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


class SilentStorage:
    """A storage that takes connections and says nothing.

    Attributes:
        config: a job's ``s3Config`` for it.
    """

    def __init__(self, server: socket.socket) -> None:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        names = {"accessId": "a", "accessSecret": "b", "bucketName": "c"}
        self.config = {**names, "endpointUrl": url}
        self._server = server
        self._connections: list[socket.socket] = []

    def is_connected(self) -> bool:
        """Whether there was a new connection since the last call."""
        before = len(self._connections)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._connections.append(self._server.accept()[0])
        return len(self._connections) > before

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def silent_storage() -> Iterator[SilentStorage]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        server.setblocking(False)
        with contextlib.closing(SilentStorage(server)) as storage:
            yield storage


@pytest.fixture
def patient_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that leaves it to the worker to end a job in time, however busy the machine is."""
    submit = Jobs.submit

    def patient_submit(jobs: Jobs, body: object, *, sync: bool) -> Job:
        job = submit(jobs, body, sync=sync)
        job.execution_timeout_s = 600.0
        return job

    monkeypatch.setattr(Jobs, "submit", patient_submit)


@contextmanager
def suspended_encoders(faulty: FaultyWorker) -> Iterator[None]:
    """Suspend the processes that encode pictures, so that no encoding ends within the block."""
    processes = [
        child
        for child in faulty.handler().children(recursive=True)
        if "comfy_worker.imaging.fork_server" in child.cmdline()
    ]
    assert processes
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def sleep(seconds: float, *, heed: bool = True) -> dict[str, Any]:
    return {"workflow": faulty_graph("FaultSleep", seconds=seconds, heed=heed)}


def endless() -> dict[str, Any]:
    """The input of a job that runs until it is ended; it shows signs of life."""
    return {"workflow": faulty_graph("FaultWait")}


def download(files: FileServer, path: str) -> dict[str, Any]:
    """The input of a job whose picture comes from a URL that never ends."""
    graph = {
        "image": node("LoadImage", image="photo.png"),
        "save": node("PreviewImage", images=["image", 0]),
    }
    return {
        "workflow": graph,
        "images": [{"name": "photo.png", "image": f"http://127.0.0.1:{files.port}{path}"}],
    }


def says(faulty: FaultyWorker, job_id: str, text: str) -> bool:
    """Whether the worker's log has a line of a job with this text."""
    return any(f"job_id={job_id}" in line and text in line for line in faulty.log.splitlines())


def own_folders(faulty: FaultyWorker) -> list[Path]:
    """The folders of the ComfyUI that runs, on disk and in memory."""
    found = [
        *faulty.temp_dir.glob(f"{PREFIX}*"),
        Path(faulty.comfyui().environ()["COMFY_WORKER_RAW_DIR"]),
    ]
    assert len(found) >= 2
    return found


def cancel(faulty: FaultyWorker, job_id: str) -> None:
    """Cancel a job; returns when the worker has done with it."""
    faulty.post(f"cancel/{job_id}")
    wait_until(lambda: says(faulty, job_id, "JOB_CANCELLED"), 15)


@pytest.mark.parametrize("path", ["/drip", "/silent", "/drip-headers"])
def test_cancelled_while_it_downloads(faulty: FaultyWorker, files: FileServer, path: str) -> None:
    files.seen.clear()
    job_id = faulty.submit(download(files, path))
    wait_until(lambda: files.seen)
    cancel(faulty, job_id)


def test_cancelled_while_it_waits_in_the_queue(faulty: FaultyWorker) -> None:
    before = faulty.submit(endless())
    running = faulty.running("FaultWait")
    job_id = faulty.submit(sleep(0.0))
    wait_until(lambda: faulty.queue()["queue_pending"])
    cancel(faulty, job_id)
    queue = faulty.queue()
    assert [row[1] for row in queue["queue_running"]] == [running], "the other goes on"
    assert queue["queue_pending"] == []
    cancel(faulty, before)


def test_cancelled_while_it_runs(faulty: FaultyWorker) -> None:
    kept = faulty.comfyui().pid
    job_id = faulty.submit(endless())
    faulty.running("FaultWait")
    cancel(faulty, job_id)
    assert faulty.queue() == {"queue_running": [], "queue_pending": []}
    assert faulty.comfyui().pid == kept


def test_an_ignored_cancel_restarts_comfyui(
    faulty: FaultyWorker,
) -> None:
    killed = faulty.comfyui().pid
    job_id = faulty.submit(sleep(600.0, heed=False))
    faulty.running("FaultSleep")
    behind = faulty.submit(sleep(0.0))
    wait_until(lambda: faulty.queue()["queue_pending"])
    cancel(faulty, job_id)
    assert faulty.is_red(behind)
    assert faulty.comfyui().pid != killed


def test_cancelled_while_it_uploads(faulty: FaultyWorker, silent_storage: SilentStorage) -> None:
    job_id = faulty.submit(sleep(0.0), s3Config=silent_storage.config)
    wait_until(silent_storage.is_connected)
    cancel(faulty, job_id)


@pytest.mark.usefixtures("patient_endpoint")
def test_silent_storage_is_given_up_in_time(
    faulty: FaultyWorker, silent_storage: SilentStorage
) -> None:
    policy = {"executionTimeout": 10000}
    job_id = faulty.submit(sleep(0.0), policy=policy, s3Config=silent_storage.config)
    wait_until(silent_storage.is_connected)
    assert faulty.is_red(job_id)
    (warning,) = faulty.finished(job_id)["output"]["warnings"]
    assert "did not accept the files" in warning
    assert warning.endswith("so the files came as base64")


@pytest.mark.usefixtures("patient_endpoint")
def test_out_of_time_in_each_stage(faulty: FaultyWorker, files: FileServer) -> None:
    assert faulty.goes_on()
    policy = {"executionTimeout": 10000}
    with suspended_encoders(faulty):
        jobs = {
            "prepare": faulty.submit(download(files, "/drip"), policy=policy),
            "collect": faulty.submit(sleep(0.0), policy=policy),
        }
        wait_until(lambda: says(faulty, jobs["collect"], "queued 3 nodes"))
        jobs["execute"] = faulty.submit(endless(), policy=policy)
        jobs["pending"] = faulty.submit(endless(), policy=policy)
        ended = {stage: faulty.finished(job_id) for stage, job_id in jobs.items()}
    for stage, job in ended.items():
        assert job["status"] == "FAILED", (stage, job)
        assert job["error"].startswith("JOB_TIMED_OUT: the job was not done after 9 s"), (
            stage,
            job,
        )
        assert job["output"]["details"][-1] == {"stage": "execute" if stage == "pending" else stage}
    assert faulty.goes_on()


@pytest.mark.usefixtures("patient_endpoint")
def test_waiting_for_another_job_costs_no_time(faulty: FaultyWorker) -> None:
    policy = {"executionTimeout": 8000}
    first = faulty.submit(sleep(4.5), policy=policy)
    faulty.running("FaultSleep")
    second = faulty.submit(sleep(4.5), policy=policy)
    wait_until(lambda: faulty.queue()["queue_pending"])
    assert faulty.is_red(first)
    assert faulty.is_red(second), "4.5 s of its own, and as many behind the first one"


@pytest.mark.usefixtures("patient_endpoint")
def test_cancelled_and_out_of_time_while_comfyui_starts(faulty: FaultyWorker) -> None:
    killed = faulty.kill_comfyui()
    booting = wait_until(lambda: found if (found := faulty.comfyui()).pid != killed else None)
    booting.suspend()
    try:
        late = faulty.submit(sleep(0.0), policy={"executionTimeout": 5000})
        unwanted = faulty.submit(sleep(0.0))
        wait_until(lambda: faulty.get(f"status/{unwanted}").get("output"))
        cancel(faulty, unwanted)
        job = faulty.finished(late)
    finally:
        booting.resume()
    assert job["error"].startswith("JOB_TIMED_OUT: the job was not done after 4.5 s")
    assert job["output"]["details"] == [{"stage": "wait"}]
    assert faulty.goes_on()


def test_sigterm_finishes_the_job_and_takes_none(
    faulty: FaultyWorker,
) -> None:
    job_id = faulty.submit(sleep(3.0))
    faulty.running("FaultSleep")
    family = [faulty.handler(), *faulty.handler().children(recursive=True)]
    folders = own_folders(faulty)
    faulty.handler().send_signal(signal.SIGTERM)
    time.sleep(1.5)  # the endpoint holds the request that was open for a second
    later = faulty.submit(sleep(0.0))
    assert faulty.is_red(job_id)
    assert faulty.is_red(later)
    assert faulty.finished(later)["workerId"] != faulty.finished(job_id)["workerId"]
    assert "retries" not in faulty.finished(job_id)
    assert psutil.wait_procs(family, timeout=15)[1] == []
    assert not any(folder.exists() for folder in folders)


def test_a_second_sigterm_ends_the_worker_at_once(faulty: FaultyWorker) -> None:
    job_id = faulty.submit(sleep(600.0, heed=False))
    faulty.running("FaultSleep")
    handler = faulty.handler()
    family = [handler, *handler.children(recursive=True)]
    folders, notices = own_folders(faulty), faulty.log.count("action=worker.leaving")
    handler.send_signal(signal.SIGTERM)
    wait_until(lambda: faulty.log.count("action=worker.leaving") > notices)
    handler.send_signal(signal.SIGTERM)
    assert psutil.wait_procs(family, timeout=15)[1] == []
    wait_until(lambda: not any(folder.exists() for folder in folders))
    faulty.post(f"cancel/{job_id}")
    assert faulty.goes_on()
