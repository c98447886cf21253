"""The program that ends the workers of an endpoint that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

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
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_what_is_still_listed_ends_when_the_pipe_closes() -> None:
    listed, ended = started(GENTLE), started(GENTLE)
    lines = f"+{listed.pid}\n+{ended.pid}\n-{ended.pid}\n".encode()
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__)), "0.3"]
    subprocess.run(command, input=lines, check=True, timeout=30)
    assert listed.wait(5) == -signal.SIGTERM
    assert ended.poll() is None
    ended.kill()
    for process in (listed, ended):
        process.communicate()


def test_a_group_that_ignores_sigterm_is_killed_with_its_children() -> None:
    process = started(STUBBORN)
    guard.end_all({process.pid}, grace_s=0.2)
    # The child holds the pipe too: it closes only when both have ended.
    process.communicate(timeout=5)
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_is_gone_already_is_no_error() -> None:
    process = started("print(flush=True)")
    process.communicate()
    guard.end_all({process.pid}, grace_s=1)
