"""Forks a process for each task on pixels.

Usage: ``python -m comfy_worker.imaging.fork_server CONTROL_FD PARENT_PID``.

Started by :mod:`comfy_worker.imaging.processes`. The server has the libraries loaded and no
threads, so a fork takes milliseconds and shares its memory. The server ends when its parent ends,
and every task ends with the server.
"""

from __future__ import annotations

import contextlib
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

from comfy_common.parent_death import end_with_parent
from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging.decoder import Decoder
from comfy_worker.imaging.encoder import Encoder
from comfy_worker.imaging.messages import CONTROL, KILL, Answer, receive, send

__all__ = ["main", "steps"]

# How often the server checks that its parent lives. A closed connection ends the server sooner.
POLL_S = 1.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# The address space of this process where /proc does not tell it.
ASSUMED_SIZE = 1 << 30

Step = Callable[[dict[str, Any], list[bytes]], Answer]


def steps() -> dict[str, Step]:
    """Return the steps that a task can run. The steps of one task share what they keep."""
    decoder = Decoder()
    encoder = Encoder()
    return {
        "probe": decoder.probe,
        "store": decoder.store,
        "prepare": encoder.prepare,
        "encode": encoder.encode,
        "measure": encoder.measure,
        "shrink": encoder.shrink,
    }


def main(control: socket.socket, parent_pid: int) -> None:
    """Fork and kill tasks until the parent has ended."""
    pids: dict[int, int] = {}
    # Ctrl-C reaches the whole process group; the worker decides when its tasks end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child_ended = _wake_on_child_end()
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([control, child_ended], [], [], POLL_S)
        if child_ended in readable:
            child_ended.recv(4096)
        _reap(pids)
        if control not in readable:
            continue
        if not _obey(control, pids):
            break
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _obey(control: socket.socket, pids: dict[int, int]) -> bool:
    """Read an order and carry it out; returns False if the parent has closed the connection."""
    message, descriptors, _, _ = socket.recv_fds(control, CONTROL.size, 1)
    if len(message) < CONTROL.size:
        return False
    order, number, memory = CONTROL.unpack(message)
    if order == KILL and number in pids:
        os.kill(pids[number], signal.SIGKILL)
    for descriptor in descriptors:
        pids[number] = _fork(control, descriptor, memory)
    return True


def _wake_on_child_end() -> socket.socket:
    """Return a socket that becomes readable when a task has ended, which must be reaped."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    # The signal module keeps only the number of the descriptor, so the socket must not close it.
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _reap(pids: dict[int, int]) -> None:
    """Forget the tasks that have ended.

    Until it is reaped, a process id cannot belong to another process.
    """
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # there are no tasks
            return
        if not ended:
            return
        for number, pid in list(pids.items()):
            if pid == ended:
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
        end_with_parent()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory:
            limit = memory + _address_space()
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if os.getppid() == server_pid:  # else the server ended before that took effect
            _serve(socket.socket(fileno=descriptor))
    finally:
        os._exit(0)


def _address_space() -> int:
    """Return how many bytes of address space this process has already."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return ASSUMED_SIZE


def _serve(connection: socket.socket) -> None:
    """Run the steps of one task until the worker closes the connection."""
    step_by_name = steps()
    while (message := receive(connection)) is not None:
        request, blocks = message
        returned: list[bytes] = []
        try:
            answer, returned = step_by_name[request["step"]](request, blocks)
        except InvalidMedia as error:
            answer = {"refused": error.sentence}
        except MemoryError:
            answer = {"fault": "it took too much memory", "reason": "memory"}
        except Exception as error:  # noqa: BLE001 (outermost: decoders raise anything)
            answer = _fault(error)
        del message, blocks  # frees their memory before the answer is sent
        send(connection, answer, returned)


def _fault(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return {"errno": error.errno}
    return {"fault": f"{type(error).__name__}: {error}"[:300], "reason": "error"}


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
