"""The guard: no process and no file outlives the worker, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_worker.comfyui.process import GUARD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Says its process ids: a child in the group, and one that has left for a session of its own.
BUSY = """
import os, subprocess, sys, time
daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
child = subprocess.Popen(["sleep", "600"])
print(os.getpid(), child.pid, daemon.pid, flush=True)
time.sleep(600)
"""
# Stands for the worker: starts the guard as process.py does, and lives on.
WORKER = """
import os, subprocess, sys, time
guard = subprocess.Popen([sys.executable, "-S", "-E", sys.argv[1], str(os.getpid()), *sys.argv[2:]],
                         start_new_session=True)
print(guard.pid, flush=True)
guard.wait()
"""


def guard(runtime_dir: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-S", "-E", str(GUARD), str(os.getpid()), str(runtime_dir), *command],
        stdout=subprocess.PIPE,
        text=True,
    )


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@pytest.fixture
def runtime_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    (folder / "input").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("code", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137), ("pass", 0)]
)
def test_it_leaves_with_the_status_of_the_command(runtime_dir: Path, code: str, status: int) -> None:
    with guard(runtime_dir, sys.executable, "-c", code) as process:
        assert process.wait(timeout=20) == status
    assert runtime_dir.exists(), "jobs of the worker that lives may still read what is there"


def test_sigterm_ends_the_whole_family(runtime_dir: Path) -> None:
    with guard(runtime_dir, sys.executable, "-c", BUSY) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert all(map(is_alive, pids))
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert not any(map(is_alive, pids))


def test_a_command_that_ignores_sigterm_is_killed(runtime_dir: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    with guard(runtime_dir, sys.executable, "-c", deaf) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "deaf\n"
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_a_killed_worker_leaves_nothing_behind(runtime_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "raw"
    other.mkdir()
    folders = f"{runtime_dir}{os.pathsep}{other}"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(GUARD), folders, sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        pids = [int(pid) for line in (worker.stdout.readline(), worker.stdout.readline()) for pid in line.split()]
        assert len(pids) == 4
        os.kill(worker.pid, signal.SIGKILL)
    assert eventually(lambda: not any(map(is_alive, pids)))
    assert not runtime_dir.exists()
    assert not other.exists()
