"""Stands between the worker and ComfyUI, so that no process and no file outlives the worker.

Run as a script, on the standard library alone: ``guard.py RUNTIME_DIR COMMAND...``. It starts the command, waits
until that ends or until its own standard input closes (the worker asked, or died, however it died), ends every
process that descends from the command, removes the runtime folder, and leaves with the command's exit status.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0


def _prctl(option: int, value: int) -> None:
    """Set a Linux process attribute; elsewhere the closed standard input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    """The process ids whose parent is this process, adopted ones included."""
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def _end_all(command: subprocess.Popen[bytes]) -> None:
    """End the command and whatever it started, politely for a moment, then at once."""
    deadline = time.monotonic() + GRACE_S
    how = signal.SIGTERM
    while True:
        alive = _children() or ([command.pid] if command.poll() is None else [])
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        time.sleep(0.02)
        for pid in alive:
            if pid == command.pid:
                command.poll()
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            how = signal.SIGKILL


def main(runtime_dir: Path, argv: list[str]) -> int:
    """Run the command to its end, or until standard input closes.

    Returns:
        The command's exit status; 128 + signal where one killed it, 0 where it was asked to end.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    command = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )

    def watch(wait: Callable[[], object]) -> None:
        wait()
        over.set()

    for wait in (command.wait, sys.stdin.buffer.read):
        threading.Thread(target=watch, args=(wait,), daemon=True).start()
    while not over.wait(1):
        pass
    status = command.poll()
    _end_all(command)
    shutil.rmtree(runtime_dir, ignore_errors=True)
    return 0 if status is None else status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
