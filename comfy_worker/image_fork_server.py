"""Forks a process for each task on pixels: ``python -m comfy_worker.image_fork_server CONTROL_FD PARENT_PID``.

Started by :mod:`comfy_worker.image_processes`. The server has the libraries loaded and no threads, so a fork takes
milliseconds and shares its memory. It ends when its parent does, and every task ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_worker.errors import InvalidMedia
from comfy_worker.image_processes import CONTROL, receive, send
from comfy_worker.inputs.decode import Decoder
from comfy_worker.response.pixels import Encoder

PR_SET_PDEATHSIG = 1
# How often the server looks whether its parent lives; a closed connection tells it at once.
POLL_S = 1.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

Step = Callable[[dict[str, Any], list[bytes]], tuple[dict[str, Any], list[bytes]]]


def steps() -> dict[str, Step]:
    """What a task can be asked to do; what one step keeps, the next ones of the task find."""
    decoder, encoder = Decoder(), Encoder()
    return {
        "probe": decoder.probe,
        "store": decoder.store,
        "prepare": encoder.prepare,
        "encode": encoder.encode,
        "measure": encoder.measure,
        "shrink": encoder.shrink,
    }


def main(control: socket.socket, parent_pid: int) -> None:
    """Fork and end tasks until the parent is gone."""
    pids: dict[int, int] = {}
    # Ctrl-C and a stop of the whole group are the worker's to act upon.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A task that has ended is taken leave of at once.
    awake, wakes = socket.socketpair()
    for end in (awake, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([control, awake], [], [], POLL_S)
        if awake in readable:
            awake.recv(4096)
        _reap(pids)
        if control not in readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, CONTROL.size, 1)
        if len(message) < CONTROL.size:
            break
        order, number, memory = CONTROL.unpack(message)
        if order == b"K" and number in pids:
            os.kill(pids[number], signal.SIGKILL)
        for descriptor in descriptors:
            pids[number] = _fork(control, descriptor, memory)
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap(pids: dict[int, int]) -> None:
    """Take leave of the tasks that have ended; until then their process ids belong to nobody else."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if not ended:
                return
            for number in [number for number, pid in pids.items() if pid == ended]:
                del pids[number]


def _fork(control: socket.socket, descriptor: int, memory: int) -> int:
    server_pid = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory:
            limit = memory + _size()
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if os.getppid() == server_pid:
            _serve(socket.socket(fileno=descriptor))
    finally:
        os._exit(0)


def _size() -> int:
    """How many bytes of address space this process has already."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 1 << 30


def _serve(connection: socket.socket) -> None:
    """Do the steps of one task until the worker closes the connection."""
    known = steps()
    while (message := receive(connection)) is not None:
        request, blocks = message
        returned: list[bytes] = []
        try:
            answer, returned = known[request["step"]](request, blocks)
        except InvalidMedia as error:
            answer = {"refused": error.sentence}
        except MemoryError:
            answer = {"fault": "it took too much memory", "reason": "memory"}
        except Exception as error:  # the outermost place of this process: decoders raise whatever they like
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                answer = {"errno": error.errno}
            else:
                answer = {"fault": f"{type(error).__name__}: {error}"[:300], "reason": "error"}
        del message, blocks
        send(connection, answer, returned)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
