"""Runs ComfyUI for the worker, so that no process and no file outlives the worker.

Run as a script, on the standard library alone: ``reaper.py PARENT_PID FOLDERS COMMAND...``. It
starts the command and waits until the command ends, until a signal asks it to end (SIGTERM), or
until its parent is gone. Then it ends every process that descends from the command, and leaves with
the command's exit status. It removes the folders (separated as in PATH) if the parent is gone; a
parent that lives may still read them.

No signal handler runs here: any Python code in one can be interrupted by the next signal, which
comes at the same moment when a container ends. The signals stay blocked, and the loop looks for a
pending one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# As in comfy_common/parent_death.py, which a script that knows no other module cannot import.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Known to comfy_worker/comfyui/process.py, which blocks them before it starts this script.
END_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
GRACE_S = 1.0
POLL_S = 0.1


def _prctl(option: int, value: int) -> None:
    """Set a Linux process attribute; on other systems ``main`` watches the parent instead."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    """List the ids of this process's children, adopted ones included."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return [int(pid) for pid in children.split()]
    return []


def _end_all(command: subprocess.Popen[bytes]) -> None:
    """End the command and whatever it started, politely for a moment, then at once."""
    deadline = time.monotonic() + GRACE_S
    number = signal.SIGTERM
    while True:
        alive = _children()
        if not alive and command.poll() is None:  # a system without /proc
            alive = [command.pid]
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.02)
        for pid in alive:
            if pid == command.pid:
                command.poll()
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            number = signal.SIGKILL


def _prepare_command() -> None:
    """Make the command die with this process, and receive the signals that are blocked here."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)


def main(parent_pid: int, folders: list[str], argv: list[str]) -> int:
    """Run the command until it ends or the parent ends.

    Args:
        parent_pid: the process whose end also ends the command.
        folders: removed at the end if the parent is gone.
        argv: the command.

    Returns:
        The command's exit status; 128 + signal if a signal killed it, 0 if it was asked to end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    command = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=_prepare_command)
    while command.poll() is None and os.getppid() == parent_pid:
        if END_SIGNALS & signal.sigpending():
            break
        time.sleep(POLL_S)
    status = command.poll()
    _end_all(command)
    time.sleep(POLL_S)  # the thread that started this may be gone a moment before its process is
    if os.getppid() != parent_pid:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    if status is None:
        return 0
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2].split(os.pathsep), sys.argv[3:]))
