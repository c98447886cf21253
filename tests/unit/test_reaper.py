"""The reaper: no process and no file outlives the worker, however that ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_worker.comfyui.process import REAPER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Says its process ids: a child in the group, and one that has left for a session of its own.
BUSY = """
import os, subprocess, sys, time
daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
child = subprocess.Popen(["sleep", "600"])
print(os.getpid(), child.pid, daemon.pid, flush=True)
time.sleep(600)
"""
# Stands for the worker: starts the reaper as process.py does, and lives on.
WORKER = """
import os, subprocess, sys, time
reaper = subprocess.Popen([sys.executable, "-S", "-E", sys.argv[1], str(os.getpid()), *sys.argv[2:]],
                         start_new_session=True)
print(reaper.pid, flush=True)
reaper.wait()
"""


def reaper(runtime_dir: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-S", "-E", str(REAPER), str(os.getpid()), str(runtime_dir), *command],
        stdout=subprocess.PIPE,
        text=True,
    )


# Stands for many workers: each child starts a reaper as process.py does, and lives on. The signals that end a
# worker and those that the kernel sends at its end arrive within the same millisecond.
MANY_WORKERS = """
import ctypes, os, signal, subprocess, sys, tempfile, time
END_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: no worker outlives a failed test
        folder = tempfile.mkdtemp(dir=sys.argv[2])
        command = [sys.executable, "-S", "-E", sys.argv[3], str(os.getpid()), folder, "sleep", "600"]
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        reaper = subprocess.Popen(command, start_new_session=True)
        os.write(1, f"{os.getpid()} {reaper.pid}\\n".encode())
        time.sleep(600)
sys.stdin.read()
"""
REAPERS = int(os.environ.get("TEST_REAPERS", "200"))
BATCH = 25


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
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137), ("pass", 0)],
)
def test_it_leaves_with_the_status_of_the_command(
    runtime_dir: Path, code: str, status: int
) -> None:
    with reaper(runtime_dir, sys.executable, "-c", code) as process:
        assert process.wait(timeout=20) == status
    assert runtime_dir.exists(), "jobs of the worker that lives may still read what is there"


def test_sigterm_ends_the_whole_family(runtime_dir: Path) -> None:
    with reaper(runtime_dir, sys.executable, "-c", BUSY) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert all(map(is_alive, pids))
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert not any(map(is_alive, pids))


def test_a_command_that_ignores_sigterm_is_killed(runtime_dir: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    with reaper(runtime_dir, sys.executable, "-c", deaf) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "deaf\n"
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_a_killed_worker_leaves_nothing_behind(runtime_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "raw"
    other.mkdir()
    folders = f"{runtime_dir}{os.pathsep}{other}"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(REAPER), folders, sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        pids = [
            int(pid)
            for line in (worker.stdout.readline(), worker.stdout.readline())
            for pid in line.split()
        ]
        assert len(pids) == 4
        os.kill(worker.pid, signal.SIGKILL)
    assert eventually(lambda: not any(map(is_alive, pids)))
    assert not runtime_dir.exists()
    assert not other.exists()


def end_worker(worker: int, reaper_pid: int, chance: random.Random) -> None:
    """End a worker and its reaper by signals that come at nearly the same time."""
    order = [(reaper_pid, signal.SIGTERM), (reaper_pid, signal.SIGTERM), (worker, signal.SIGKILL)]
    chance.shuffle(order)
    for pid, number in order[chance.randrange(2) :] if order[0][0] == reaper_pid else order:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        busy_until = time.perf_counter() + chance.uniform(0, 0.001)
        while time.perf_counter() < busy_until:
            pass


def test_no_timing_of_signals_stops_it(tmp_path: Path) -> None:
    chance = random.Random(17)
    for _ in range(REAPERS // BATCH):
        code = [sys.executable, "-c", MANY_WORKERS, str(BATCH), str(tmp_path), str(REAPER)]
        many = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with many:
            assert many.stdout is not None
            try:
                lines = [many.stdout.readline().split() for _ in range(BATCH)]
                pairs = [(int(worker), int(reaper_pid)) for worker, reaper_pid in lines]
                for worker, reaper_pid in pairs:
                    time.sleep(
                        chance.uniform(0, 0.02)
                    )  # some reapers have not begun their work yet
                    end_worker(worker, reaper_pid, chance)
                pids = [pid for pair in pairs for pid in pair]
                assert eventually(lambda pids=pids: not any(map(is_alive, pids)), 30)
            finally:
                many.kill()
        assert eventually(lambda: not list(tmp_path.iterdir()), 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_storm_of_one_signal_ends_it(runtime_dir: Path, number: int) -> None:
    with reaper(runtime_dir, sys.executable, "-c", BUSY) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.0001)
        assert process.returncode == 0
    assert not any(map(is_alive, pids))


def test_the_command_hears_the_signals_again(runtime_dir: Path) -> None:
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)"
    with reaper(runtime_dir, sys.executable, "-c", code) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "set()\n"
