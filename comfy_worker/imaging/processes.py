"""Runs work on pixels in processes that end with their task, with the job, or with the worker.

A small server process (:mod:`comfy_worker.imaging.fork_server`) has the libraries loaded and forks
a process for each task, in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from comfy_common import paths
from comfy_worker.deadline import TICK_S, Deadline
from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging.messages import CONTROL, FORK, KILL, Answer, receive, send

__all__ = ["ImageProcesses", "ImageTask", "TaskFault", "image_processes", "split_into_shares"]

# A healthy process reads each request at once.
SEND_LIMIT_S = 60.0
# The server gets no other variable of the environment: it needs neither tokens nor keys.
ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
)
# The steps that read nothing but pixels which this worker's own nodes wrote.
PIXEL_STEPS = {"prepare", "encode"}
# How many processes wait for the next task.
MOST_IDLE = 2
# A library that starts threads of its own cannot be forked.
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class TaskFault(Exception):
    """A task ended without an answer.

    Args:
        problem: why, in words.
        reason: ``memory``, ``time``, ``died``, or ``error`` if Python raised something unforeseen.
    """

    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(problem)
        self.reason = reason


class ImageTask:
    """A process that runs one task step by step. Only one thread at a time may use it.

    Attributes:
        steps: the names of the steps that it has run.
    """

    def __init__(self, connection: socket.socket, stop: Deadline) -> None:
        self._connection = connection
        self._stop = stop
        self.steps: set[str] = set()
        connection.settimeout(SEND_LIMIT_S)

    def run(
        self,
        step: str,
        request: dict[str, Any],
        *blocks: bytes,
        limit_s: float = math.inf,
    ) -> Answer:
        """Run a step in the process.

        Args:
            step: a name from :func:`comfy_worker.imaging.fork_server.steps`.
            request: the arguments of the step; must be JSON.
            blocks: bytes that belong to the request.
            limit_s: how long the step may take.

        Returns:
            The answer, and the bytes that belong to it.

        Raises:
            InvalidMedia: the step rejected a client's file.
            JobCancelled: the job was cancelled meanwhile.
            JobTimedOut: the job's time was over meanwhile.
            OSError: the disk is full.
            TaskFault: the process gave no answer.
        """
        self.steps.add(step)
        try:
            send(self._connection, {"step": step, **request}, blocks)
            self._wait_for_answer(limit_s)
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

    def _wait_for_answer(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not poll.poll(TICK_S * 1000):
            self._stop.check()
            if time.monotonic() >= deadline:
                raise TaskFault(f"it took longer than {limit_s:g} s", "time")


@dataclass(frozen=True)
class _Process:
    """A forked process.

    Attributes:
        number: by which the server knows it.
        connection: leads to it.
    """

    number: int
    connection: socket.socket


class ImageProcesses:
    """The fork server and its tasks. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._idle: list[_Process] = []

    def start(self) -> None:
        """Start the server unless it is running. Does not wait until the server is ready."""
        with self._lock:
            self._ensure_server()

    def close(self) -> None:
        """End the server and every task."""
        with self._lock:
            self._end_server()

    @contextmanager
    def pixel_task(self, stop: Deadline) -> Iterator[ImageTask]:
        """Start a task that only encodes our own raw pixels; a later one may reuse its process.

        A fork takes longer than the encoding of a small picture. A process that has read any file
        of a client or of a node is never used again, and neither is one whose task failed.
        """
        process = self._take_idle() or self._start_process(0)
        task = ImageTask(process.connection, stop)
        is_idle = False
        try:
            yield task
            is_idle = task.steps <= PIXEL_STEPS
        finally:
            if not (is_idle and self._keep_idle(process)):
                self._kill(process.number)
                process.connection.close()

    @contextmanager
    def task(self, stop: Deadline, memory: int = 0) -> Iterator[ImageTask]:
        """Fork a process for a task. Leaving the block kills the process, whatever it is doing.

        Args:
            stop: when the task must end.
            memory: how many bytes the process may take; 0: no limit.
        """
        process = self._start_process(memory)
        with process.connection:
            try:
                yield ImageTask(process.connection, stop)
            finally:
                self._kill(process.number)

    def _start_process(self, memory: int) -> _Process:
        number = next(self._numbers) & 0xFFFFFFFF
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._fork(number, memory, theirs)
            except BaseException:
                ours.close()
                raise
        return _Process(number, ours)

    def _take_idle(self) -> _Process | None:
        """Return an idle process that lives; None if there is none."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                process = self._idle.pop()
            poll = select.poll()
            poll.register(process.connection, select.POLLIN)
            if not poll.poll(0):
                return process
            process.connection.close()  # it has ended

    def _keep_idle(self, process: _Process) -> bool:
        """Keep a process for the next task; returns whether there was room."""
        with self._lock:
            if self._control is None or len(self._idle) >= MOST_IDLE:
                return False
            self._idle.append(process)
        return True

    def _fork(self, number: int, memory: int, connection: socket.socket) -> None:
        message = CONTROL.pack(FORK, number, memory)
        with self._lock:
            for _ in range(2):  # a server that was killed is started again
                control = self._ensure_server()
                with contextlib.suppress(ConnectionError):
                    socket.send_fds(control, [message], [connection.fileno()])
                    return
                self._end_server()
        raise TaskFault("no process could be started", "died")

    def _kill(self, number: int) -> None:
        with self._lock:
            if self._control is None:
                return
            with contextlib.suppress(OSError):  # the server is gone, and all of its tasks with it
                self._control.sendall(CONTROL.pack(KILL, number, 0))

    def _ensure_server(self) -> socket.socket:
        """Return the connection to the server; starts the server unless it is running."""
        if self._server is not None and self._control is not None and self._server.poll() is None:
            return self._control
        self._end_server()
        ours, theirs = socket.socketpair()
        environ = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        arguments = [str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "comfy_worker.imaging.fork_server", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=paths.REPO,
                env={**environ, **NO_THREADS},
                pass_fds=[theirs.fileno()],
            )
        self._control = ours
        return ours

    def _end_server(self) -> None:
        for process in self._idle:
            process.connection.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.kill()  # its tasks end with it
            self._server.wait()
        self._server = None
        self._control = None


@functools.cache
def image_processes() -> ImageProcesses:
    """Return the processes of this worker."""
    return ImageProcesses()


def split_into_shares(count: int, most: int | None = None) -> list[range]:
    """Split the positions of a list into shares, one share for each process.

    Args:
        count: the length of the list.
        most: how many processes there may be; never more than there are processors.
    """
    processes = min(count, os.cpu_count() or 1)
    if most is not None:
        processes = max(1, min(processes, most))
    if count == 0:
        return []
    return [range(first, count, processes) for first in range(processes)]
