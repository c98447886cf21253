"""The program that ends the workers of an endpoint that was killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from comfy_common.paths import REPO
from comfy_local.endpoint import guard

GENTLE = "print(flush=True); import time; time.sleep(60)"
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"])
child.wait()
"""


def started(code: str) -> subprocess.Popen[bytes]:
    """A process that leads its own group; its first line says that it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_listed_processes_end_when_the_pipe_closes() -> None:
    listed, ended = started(GENTLE), started(GENTLE)
    lines = f"+{listed.pid}\n+{ended.pid}\n-{ended.pid}\n".encode()
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__)), "0.3"]
    subprocess.run(command, input=lines, check=True, timeout=30)
    assert listed.wait(5) == -signal.SIGTERM
    assert ended.poll() is None
    ended.kill()
    for process in (listed, ended):
        process.communicate()


def test_a_group_that_ignores_sigterm_is_killed() -> None:
    process = started(STUBBORN)
    guard.end_all({process.pid}, grace_s=0.2)
    # The child holds the pipe too: it closes only when both have ended.
    process.communicate(timeout=5)
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_already_ended_is_fine() -> None:
    process = started("print(flush=True)")
    process.communicate()
    guard.end_all({process.pid}, grace_s=1)


def test_signals_do_not_end_it_before_its_work() -> None:
    listed = started(GENTLE)
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__)), "0.3"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(f"+{listed.pid}\n".encode())
    process.stdin.flush()
    ignored = Path(f"/proc/{process.pid}/status")
    while (
        int(re.search(r"^SigIgn:\s+(\w+)", ignored.read_text(), re.MULTILINE)[1], 16) & 1 << 14 == 0
    ):
        time.sleep(0.01)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert process.poll() is None
    process.communicate(timeout=10)
    assert listed.wait(5) == -signal.SIGTERM
    listed.communicate()


# The second signal comes at the worst moment: while the main thread holds the lock of an event.
SERVE = """
import os, signal, sys, threading
from pathlib import Path
from comfy_local.endpoint.local import Address, serve
notify_all = threading.Condition.notify_all

def interrupted(self):
    if threading.get_ident() == threading.main_thread().ident:
        os.kill(os.getpid(), signal.SIGTERM)
    notify_all(self)

threading.Condition.notify_all = interrupted
sys.exit(serve(Address(), 1, handler=Path(sys.argv[1])))
"""


def test_ctrl_c_twice_ends_serve(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("import time; time.sleep(600)")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(handler)], cwd=REPO, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert b"starting 1 worker" in process.stdout.readline()
    try:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
