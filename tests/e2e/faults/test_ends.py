"""A job that must end early, in each stage: cancelled, or out of time; and a worker that must."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfy_worker.comfyui.workdirs import PREFIX
from tests.e2e.faults.conftest import FaultyWorker, faulty_graph, wait_until
from tests.file_server import FileServer, file_server
from tests.graphs import node

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture(scope="module")
def silent_storage() -> Iterator[dict[str, Any]]:
    """The configuration of a storage that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": url}


def sleep(seconds: float, *, heed: bool = True) -> dict[str, Any]:
    return {"workflow": faulty_graph("FaultSleep", seconds=seconds, heed=heed)}


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
    before = faulty.submit(sleep(600.0))
    running = faulty.running("FaultSleep")
    job_id = faulty.submit(sleep(0.0))
    wait_until(lambda: faulty.queue()["queue_pending"])
    cancel(faulty, job_id)
    queue = faulty.queue()
    assert [row[1] for row in queue["queue_running"]] == [running], "the other goes on"
    assert queue["queue_pending"] == []
    cancel(faulty, before)


def test_cancelled_while_it_runs(faulty: FaultyWorker) -> None:
    kept = faulty.comfyui().pid
    job_id = faulty.submit(sleep(600.0))
    faulty.running("FaultSleep")
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


def test_cancelled_while_it_uploads(faulty: FaultyWorker, silent_storage: dict[str, Any]) -> None:
    job_id = faulty.submit(sleep(0.0), s3Config=silent_storage)
    wait_until(
        lambda: says(faulty, job_id, "queued 3 nodes") and faulty.queue()["queue_running"] == []
    )
    cancel(faulty, job_id)


def test_out_of_time_in_each_stage(
    faulty: FaultyWorker, files: FileServer, silent_storage: dict[str, Any]
) -> None:
    policy = {"executionTimeout": 5000}
    jobs = {
        "prepare": faulty.submit(download(files, "/drip"), policy=policy),
        "collect": faulty.submit(sleep(0.0), policy=policy, s3Config=silent_storage),
    }
    wait_until(lambda: says(faulty, jobs["collect"], "queued 3 nodes"))
    jobs["execute"] = faulty.submit(sleep(600.0), policy=policy)
    jobs["pending"] = faulty.submit(sleep(600.0), policy=policy)
    for stage, job_id in jobs.items():
        job = faulty.finished(job_id)
        assert job["status"] == "FAILED", (stage, job)
        assert job["error"].startswith("JOB_TIMED_OUT: the job was not done after 4.5 s"), (
            stage,
            job,
        )
        assert job["output"]["details"][-1] == {"stage": "execute" if stage == "pending" else stage}
    assert faulty.goes_on()


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
    folders, told = own_folders(faulty), faulty.log.count("action=worker.leaving")
    handler.send_signal(signal.SIGTERM)
    wait_until(lambda: faulty.log.count("action=worker.leaving") > told)
    handler.send_signal(signal.SIGTERM)
    assert psutil.wait_procs(family, timeout=15)[1] == []
    wait_until(lambda: not any(folder.exists() for folder in folders))
    faulty.post(f"cancel/{job_id}")
    assert faulty.goes_on()
