"""The worker processes of the local endpoint: the handler under the SDK's real job loop.

The pool starts the workers with RunPod's environment, replaces workers that end, and ends all
workers with the endpoint. If the endpoint is killed, ``guard.py`` ends them.

A worker is like a container: it leads its own process group, and when it has ended, the remaining
processes of the group are killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from .jobs import Jobs

__all__ = ["Worker", "WorkerPool", "worker_environ"]

READY_MARK = b"action=comfyui.ready"
STOP_GRACE_S = 10.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """One running handler process."""

    worker_id: str
    process: subprocess.Popen[bytes]
    reader: threading.Thread | None = None
    ready: bool = False
    stopping: bool = False

    @property
    def pid(self) -> int:
        """The process id of the handler, which is its process group's id too."""
        return self.process.pid


def worker_environ(environ: Mapping[str, str], base_url: str, worker_id: str) -> dict[str, str]:
    """Returns the environment of a worker process: RunPod's variables, added to ``environ``.

    Args:
        environ: The caller's variables. They may set the SDK's own checks and its log level.
        base_url: The URL of this endpoint, such as ``http://127.0.0.1:8000/v2/local``.
        worker_id: The value of ``RUNPOD_POD_ID``.
    """
    # The SDK would check RAM, disk and network for RunPod's machines, and log full outputs at
    # DEBUG.
    defaults = {
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "RUNPOD_DEBUG_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
    }
    # The SDK's heartbeat uses proxies, which must not get requests to this machine.
    no_proxy = ",".join(
        filter(None, [environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1"])
    )
    return {
        **defaults,
        **environ,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # The SDK replaces $ID and $RUNPOD_POD_ID, and needs a query in the first three.
        "RUNPOD_WEBHOOK_GET_JOB": f"{base_url}/job-take/$ID?gpu=local",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base_url}/job-done/$RUNPOD_POD_ID/$ID?gpu=local",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base_url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=local",
        "RUNPOD_WEBHOOK_PING": f"{base_url}/ping/$RUNPOD_POD_ID",
        "RUNPOD_PING_INTERVAL": "10000",
        "RUNPOD_AI_API_KEY": "local",
        "RUNPOD_POD_ID": worker_id,
    }


@dataclass(frozen=True)
class WorkerCommand:
    """How a worker is started.

    Args:
        arguments: The interpreter and the handler file.
        environ: The variables for ``worker_environ``.
        base_url: The URL of the endpoint.
    """

    arguments: Sequence[str]
    environ: Mapping[str, str]
    base_url: str


class WorkerPool:
    """Keeps a number of worker processes running; its methods belong to the endpoint's event loop.

    Args:
        command: Starts a worker.
        count: How many workers, 1 or more.
        jobs: The jobs of the endpoint.
        notify: Called after each change that an open poll of a worker should see.
        log: Receives the output of the workers.
    """

    def __init__(
        self,
        command: WorkerCommand,
        *,
        count: int,
        jobs: Jobs,
        notify: Callable[[], None],
        log: IO[bytes],
    ) -> None:
        self._command = command
        self._count = count
        self._jobs = jobs
        self._notify = notify
        self._log = log
        self._workers: dict[str, Worker] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._stops: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self.first_ready = threading.Event()

    @property
    def workers(self) -> list[Worker]:
        """The workers whose processes run."""
        return list(self._workers.values())

    def start(self) -> None:
        """Starts the guard and the workers; returns before they are ready.

        Raises:
            OSError: The interpreter of the command cannot be started.
        """
        guard = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).with_name("guard.py")),
            str(STOP_GRACE_S),
        ]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        for _ in range(self._count):
            self._keepers.append(asyncio.create_task(self._keep(self._launch())))

    async def close(self) -> None:
        """Stops the running jobs, ends every worker, and returns when no process is left."""
        self._closing.set()
        self._jobs.cancel_all()
        self._notify()
        # A worker asks for its stop signals again after a second at most.
        deadline_s = time.monotonic() + 2
        while self._jobs.has_stops() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        await asyncio.gather(*(self._stop(worker) for worker in self.workers))
        await asyncio.gather(*self._keepers, *self._stops)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    def refresh(self, worker_id: str) -> None:
        """Replaces a worker once its running jobs are done (``refresh_worker``)."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            task = asyncio.create_task(self._stop(worker))
            self._stops.add(task)
            task.add_done_callback(self._stops.discard)

    def mark_ready(self, worker_id: str) -> None:
        """Notes that the worker can run jobs; any thread may call this."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.ready = True
            self.first_ready.set()

    def counts(self) -> dict[str, int]:
        """Returns the ``workers`` part of ``/health``; a worker that must restart is unhealthy."""
        ready = [worker for worker in self.workers if worker.ready and not worker.stopping]
        running = sum(self._jobs.load(worker.worker_id) > 0 for worker in ready)
        idle = len(ready) - running
        return {
            "idle": idle,
            "initializing": len(self._workers) - len(ready),
            "ready": idle,
            "running": running,
            "throttled": 0,
            "unhealthy": self._count - len(self._workers),
        }

    async def _keep(self, worker: Worker) -> None:
        """Watches one worker and starts its successors until the pool closes."""
        failures = 0
        while True:
            while worker.process.poll() is None:
                await asyncio.sleep(0.05)
            self._bury(worker)
            failures = 1 if worker.ready else failures + 1
            delay_s = (
                0.0
                if worker.stopping
                else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failures - 1))
            )
            if not self._closing.is_set():
                _log.warning(
                    "action=worker.ended worker_id=%s exit_code=%s next_start_s=%s",
                    worker.worker_id, worker.process.returncode, delay_s,
                )  # fmt: skip
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay_s)
            if self._closing.is_set():
                return
            worker = self._launch()

    def _launch(self) -> Worker:
        worker_id = f"local-{uuid4().hex[:12]}"
        process = subprocess.Popen(
            self._command.arguments,
            env=worker_environ(self._command.environ, self._command.base_url, worker_id),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        worker = Worker(worker_id, process)
        self._tell_guard(f"+{worker.pid}")
        self._workers[worker_id] = worker
        worker.reader = threading.Thread(target=self._pass_on_output, args=(worker,), daemon=True)
        worker.reader.start()
        return worker

    def _pass_on_output(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                if READY_MARK in line:
                    self.mark_ready(worker.worker_id)
                # Go on without the log, or the worker would block on a full pipe.
                with suppress(OSError, ValueError):
                    self._log.write(line)
                    self._log.flush()

    async def _stop(self, worker: Worker) -> None:
        """Ends a worker as RunPod does: no new job, SIGTERM, and SIGKILL after a while."""
        worker.stopping = True
        self._jobs.leave(worker.worker_id)
        worker.process.terminate()
        # Only now: the SDK leaves its loop when the open polls return after SIGTERM.
        self._notify()
        deadline_s = time.monotonic() + STOP_GRACE_S
        while worker.process.poll() is None:
            if time.monotonic() >= deadline_s:
                worker.process.kill()
            await asyncio.sleep(0.05)

    def _bury(self, worker: Worker) -> None:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        if worker.reader is not None:
            # Quick, unless a process that left the group holds the pipe.
            worker.reader.join(1)
        self._tell_guard(f"-{worker.pid}")
        del self._workers[worker.worker_id]
        self._jobs.worker_gone(worker.worker_id)
        self._notify()

    def _tell_guard(self, line: str) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # the guard was killed; the endpoint works without it
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()
