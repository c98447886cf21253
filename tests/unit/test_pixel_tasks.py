"""A process that encoded small pictures of ours serves the next job; any other ends with its task."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comfy_worker.deadline import Deadline
from comfy_worker.imaging.processes import MOST_IDLE, ImageProcesses, ImageTask


@pytest.fixture
def processes() -> Iterator[ImageProcesses]:
    processes = ImageProcesses()
    yield processes
    processes.close()


def encode(task: ImageTask, folder: Path, text: dict[str, str] | None = None) -> bytes:
    source, target = folder / "pixels", folder / "picture"
    source.write_bytes(bytes(2 * 2 * 3))
    task.run("prepare", {"text": text or {}})
    request = {"source": str(source), "target": str(target), "shape": (2, 2, 3), "format": "png"}
    task.run("encode", {**request, "quality": 90, "lossless": False})
    return target.read_bytes()


def pids(processes: ImageProcesses) -> set[int]:
    """The forked processes that live."""
    assert processes._server is not None
    children = psutil.Process(processes._server.pid).children()
    return {child.pid for child in children if _is_alive(child)}


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended since the list was made
        return False


def settled_pids(processes: ImageProcesses, count: int) -> set[int]:
    deadline = time.monotonic() + 10
    while len(found := pids(processes)) != count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_next_task_has_same_process(processes: ImageProcesses, tmp_path: Path) -> None:
    with processes.pixel_task(Deadline()) as task:
        encode(task, tmp_path)
        first = pids(processes)
    with processes.pixel_task(Deadline()) as task:
        encode(task, tmp_path)
        assert pids(processes) == first


def test_next_picture_has_no_earlier_text(processes: ImageProcesses, tmp_path: Path) -> None:
    with processes.pixel_task(Deadline()) as task:
        assert b"a secret" in encode(task, tmp_path, {"prompt": "a secret"})
    with processes.pixel_task(Deadline()) as task:
        assert b"a secret" not in encode(task, tmp_path)


def test_failed_task_ends_its_process(processes: ImageProcesses, tmp_path: Path) -> None:
    def work() -> None:
        with processes.pixel_task(Deadline()) as task:
            encode(task, tmp_path)
            raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        work()
    assert settled_pids(processes, 0) == set()


def test_process_that_read_a_file_ends(processes: ImageProcesses, tmp_path: Path) -> None:
    with processes.pixel_task(Deadline()) as task:
        picture = encode(task, tmp_path)
        (tmp_path / "saved.png").write_bytes(picture)
        task.run("measure", {"source": str(tmp_path / "saved.png")})
    assert settled_pids(processes, 0) == set()


def test_killed_idle_process_is_replaced(processes: ImageProcesses, tmp_path: Path) -> None:
    with processes.pixel_task(Deadline()) as task:
        encode(task, tmp_path)
    for pid in pids(processes):
        os.kill(pid, signal.SIGKILL)
    assert settled_pids(processes, 0) == set()
    with processes.pixel_task(Deadline()) as task:
        assert encode(task, tmp_path)


def test_killed_server_is_replaced(processes: ImageProcesses, tmp_path: Path) -> None:
    with processes.pixel_task(Deadline()) as task:
        encode(task, tmp_path)
    idle = pids(processes)
    assert processes._server is not None
    processes._server.kill()
    processes._server.wait()
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in idle) and time.monotonic() < deadline:
        time.sleep(0.02)
    with processes.pixel_task(Deadline()) as task:
        assert encode(task, tmp_path)


def test_few_processes_stay_idle(processes: ImageProcesses, tmp_path: Path) -> None:
    tasks = [processes.pixel_task(Deadline()) for _ in range(MOST_IDLE + 2)]
    for task in tasks:
        encode(task.__enter__(), tmp_path)
    for task in tasks:
        task.__exit__(None, None, None)
    assert len(settled_pids(processes, MOST_IDLE)) == MOST_IDLE
    processes.close()
    assert processes._idle == []
