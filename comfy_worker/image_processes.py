"""Runs the work on pixels in processes of its own, which can be ended at any moment.

A picture that a client sent can keep a decoder busy for hours, and take all memory; a thread in a C library
cannot be ended. So a small server process (:mod:`comfy_worker.image_fork_server`) has the libraries loaded and
forks a process for each task, in a few milliseconds. That process ends with its task, with the job, or with the
worker, whichever comes first.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from comfy_common import paths
from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import InvalidMedia

__all__ = [
    "CONTROL",
    "ImageProcesses",
    "ImageTask",
    "TaskFault",
    "image_processes",
    "receive",
    "send",
    "split",
]

# To the server: what to do (F: fork, K: kill), a task's number, and how many bytes of memory it may take; 0: all.
CONTROL = struct.Struct(">cIQ")
# Before a message: the length of its JSON, and how many blocks of bytes follow it.
HEAD = struct.Struct(">II")
LENGTH = struct.Struct(">Q")
# A task's process reads what it is sent at once.
SEND_LIMIT_S = 60.0
# What the server's environment keeps: no token, and no key.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")


class TaskFault(Exception):
    """A task that did not come to an answer.

    Args:
        problem: why, in words.
        reason: ``memory``, ``time``, ``died``, or ``error`` where Python raised something unforeseen.
    """

    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(problem)
        self.reason = reason


class ImageTask:
    """One process that does one task, step by step; used by one thread at a time."""

    def __init__(self, connection: socket.socket, stop: Stop) -> None:
        self._connection = connection
        self._stop = stop
        connection.settimeout(SEND_LIMIT_S)

    def ask(
        self, step: str, request: dict[str, Any], *blocks: bytes, limit_s: float = math.inf
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Have a step done.

        Args:
            step: one of ``image_fork_server.STEPS``.
            request: its arguments, as JSON.
            blocks: bytes that go with them.
            limit_s: how long it may take.

        Returns:
            The answer, and the bytes that came with it.

        Raises:
            InvalidMedia: the step refused what it was given.
            JobCancelled: the job was cancelled meanwhile.
            JobTimedOut: the job's time was over meanwhile.
            OSError: the disk did not take what the step wrote.
            TaskFault: there is no answer.
        """
        try:
            send(self._connection, {"step": step, **request}, blocks)
            self._wait(limit_s)
            message = receive(self._connection)
        except (ConnectionError, TimeoutError):
            message = None
        if message is None:
            raise TaskFault("its process ended", "died")
        answer, returned = message
        if "refused" in answer:
            raise InvalidMedia(answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "fault" in answer:
            raise TaskFault(answer["fault"], answer["reason"])
        return answer, returned

    def _wait(self, limit_s: float) -> None:
        """Wait for the first byte of an answer."""
        ends = time.monotonic() + limit_s
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not poll.poll(TICK_S * 1000):
            self._stop.check()
            if time.monotonic() >= ends:
                raise TaskFault(f"it took longer than {limit_s:g} s", "time")


class ImageProcesses:
    """The server and the tasks that it forked; may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start the server, unless it runs; returns at once."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End the server and every task."""
        with self._lock:
            self._end()

    @contextmanager
    def task(self, stop: Stop, memory: int = 0) -> Iterator[ImageTask]:
        """A process for a task; it ends with the block, whatever it does by then.

        Args:
            stop: when the task must end.
            memory: how many bytes it may take; 0: as many as there are.
        """
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._tell(b"F", number, memory, theirs)
            try:
                yield ImageTask(ours, stop)
            finally:
                with contextlib.suppress(OSError):  # the server is gone, and all tasks with it
                    self._tell(b"K", number)

    def _tell(self, order: bytes, number: int, memory: int = 0, connection: socket.socket | None = None) -> None:
        message = CONTROL.pack(order, number & 0xFFFFFFFF, memory)
        with self._lock:
            if connection is None:
                if self._control is not None:
                    self._control.sendall(message)
                return
            for _ in range(2):  # a server that was killed is started again
                control = self._started()
                with contextlib.suppress(ConnectionError):
                    socket.send_fds(control, [message], [connection.fileno()])
                    return
                self._end()
        raise TaskFault("no process could be started", "died")

    def _started(self) -> socket.socket:
        if self._server is not None and self._control is not None and self._server.poll() is None:
            return self._control
        self._end()
        ours, theirs = socket.socketpair()
        environ = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        with theirs:
            self._server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "comfy_worker.image_fork_server"),
                    *(str(theirs.fileno()), str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=paths.REPO,
                # A library that starts threads of its own cannot be forked.
                env={**environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
            )
        self._control = ours
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.kill()  # its tasks end with it
            self._server.wait()
        self._server = self._control = None


@functools.cache
def image_processes() -> ImageProcesses:
    """The ones of this worker."""
    return ImageProcesses()


def split(count: int, most: int | None = None) -> list[range]:
    """Which of ``count`` things go to which of several processes; no more processes than processors.

    Args:
        count: how many things there are.
        most: how many processes there may be at most.
    """
    processes = min(count, os.cpu_count() or 1)
    if most is not None:
        processes = max(1, min(processes, most))
    return [range(first, count, processes) for first in range(processes if count else 0)]


def send(connection: socket.socket, message: dict[str, Any], blocks: tuple[bytes, ...] | list[bytes] = ()) -> None:
    """Write a message and the bytes that go with it."""
    text = json.dumps(message).encode()
    connection.sendall(HEAD.pack(len(text), len(blocks)) + text)
    for block in blocks:
        connection.sendall(LENGTH.pack(len(block)))
        connection.sendall(block)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read a message and the bytes that go with it; None where the other side has ended."""
    try:
        length, count = HEAD.unpack(_exactly(connection, HEAD.size))
        message: dict[str, Any] = json.loads(_exactly(connection, length))
        sizes_first = (LENGTH.unpack(_exactly(connection, LENGTH.size))[0] for _ in range(count))
        return message, [_exactly(connection, size) for size in sizes_first]
    except EOFError:
        return None


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = connection.recv_into(view[have:])
        if not got:
            raise EOFError
        have += got
    view.release()
    return bytes(data)
