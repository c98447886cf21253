"""The jobs of the local endpoint: their states, their queue, and the workers that hold them.

The states are RunPod's: IN_QUEUE -> IN_PROGRESS -> COMPLETED | FAILED | CANCELLED | TIMED_OUT. The
caller provides the clock. Not thread-safe: one thread must make all calls.

RunPod leaves some cases open. Here they are solved like this:
- If a worker ends while it holds a job, the job returns to the head of the queue, once. The second
  time the job is FAILED, with RunPod's own message.
- ``policy.executionTimeout`` and ``policy.ttl`` may be shorter than RunPod allows (5 s and 10 s),
  so that tests are quick.
- A purged job is CANCELLED, so that a waiting client gets an answer.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .job import BadRequest, Job, Status, new_job
from .outputs import OutputStore, read_kept

__all__ = ["MAX_QUEUE_SIZE", "Jobs", "QueueFull", "UnknownJob"]

MAX_QUEUE_SIZE = 100
KEEP_FINISHED = 1000
MAX_RETRIES = 1
RETRYABLE: tuple[Status, ...] = ("FAILED", "TIMED_OUT")

# The SDK ignores a stop signal for a job that it has not begun yet, which takes it up to 0.1 s.
STOP_NOT_BEFORE_S = 0.3


class UnknownJob(Exception):
    """There is no job with this id, or it ended long ago and was removed (HTTP 404)."""


class QueueFull(Exception):
    """The queue is full (HTTP 429)."""


class Jobs:
    """All jobs of the endpoint, and what clients and workers do with them.

    Args:
        clock: Returns seconds that never decrease, such as ``time.monotonic``.
        max_queue_size: How many jobs may wait, 1 or more.
        outputs: Keeps large outputs of finished jobs; None to keep them in memory.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_queue_size: int = MAX_QUEUE_SIZE,
        outputs: OutputStore | None = None,
    ) -> None:
        self._clock = clock
        self._outputs = outputs
        self._max_queue_size = max_queue_size
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: dict[str, Job] = {}
        self._drop_at_s: dict[str, float] = {}  # finished jobs in the order they ended
        self._polling: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._stops: dict[str, dict[str, float]] = {}  # worker_id -> job_id -> not before this time
        # Jobs that have ended and whose webhook has not been called yet.
        self.webhooks: deque[Job] = deque()
        self._ended: dict[Status, int] = {
            "COMPLETED": 0,
            "FAILED": 0,
            "CANCELLED": 0,
            "TIMED_OUT": 0,
        }
        self._retried = 0

    # Called for clients.

    def submit(self, body: object, *, sync: bool) -> Job:
        """Adds the job of a request to the queue.

        Args:
            body: The request body of ``/run`` or ``/runsync``, parsed.
            sync: Whether it came through ``/runsync``.

        Raises:
            BadRequest: RunPod would refuse the request.
            QueueFull: Too many jobs wait already.
        """
        self._check_space()
        job = new_job(body, sync=sync, now_s=self._clock())
        self._jobs[job.job_id] = job
        self._queue.append(job)
        return job

    def get(self, job_id: str) -> Job:
        """Returns a job.

        Raises:
            UnknownJob: There is no such job.
        """
        if job_id not in self._jobs:
            raise UnknownJob(f"there is no job {job_id}; finished jobs are removed after a while")
        return self._jobs[job_id]

    def retry(self, job_id: str) -> Job:
        """Queues a job that has failed or timed out again, under its id.

        Raises:
            UnknownJob: There is no such job.
            BadRequest: The job waits, runs, was cancelled or has succeeded.
            QueueFull: Too many jobs wait already.
        """
        job = self.get(job_id)
        if job.status not in RETRYABLE:
            raise BadRequest(
                f"only a job that is FAILED or TIMED_OUT can be retried; this one is {job.status}"
            )
        self._check_space()
        del self._drop_at_s[job_id]
        self._drop_outputs(job)
        job.request = read_kept(job.request)
        job.status, job.worker_id, job.output, job.error = "IN_QUEUE", None, None, None
        job.created_s, job.started_s, job.finished_s, job.retries = self._clock(), None, None, 0
        job.stream.clear()
        self._queue.append(job)
        return job

    def knows(self, job_id: str) -> bool:
        """Whether a client can still ask for a job."""
        return job_id in self._jobs

    def queue_position(self, job: Job) -> int | None:
        """Returns the number of a waiting job, from 1; None if it does not wait."""
        return self._queue.index(job) + 1 if job.status == "IN_QUEUE" else None

    def all(self) -> list[Job]:
        """Returns every job that a client can still ask for, the newest last."""
        return list(self._jobs.values())

    def keep_for(self, job: Job, seconds: float) -> None:
        """Removes the result of a finished job after these seconds."""
        if job.finished:
            self._drop_at_s[job.job_id] = self._clock() + seconds

    def cancel(self, job_id: str) -> Job:
        """Cancels a job that is queued or in progress; a finished job does not change.

        Raises:
            UnknownJob: There is no such job.
        """
        job = self.get(job_id)
        if not job.finished:
            self._stop(job, "CANCELLED")
        return job

    def cancel_all(self) -> None:
        """Cancels every job that has not finished."""
        self.purge()
        for job in list(self._running.values()):
            self._stop(job, "CANCELLED")

    def purge(self) -> int:
        """Cancels every queued job, not those in progress. Returns how many there were."""
        waiting = list(self._queue)
        for job in waiting:
            self._stop(job, "CANCELLED")
        return len(waiting)

    def take_stream(self, job_id: str) -> dict[str, Any]:
        """Returns the answer of ``/stream``: the job's values since the last call.

        Raises:
            UnknownJob: There is no such job.
        """
        job = self.get(job_id)
        chunks, job.stream = job.stream, []
        return {"status": job.status, "stream": chunks}

    # Called for workers.

    @contextmanager
    def polling(self, worker_id: str) -> Iterator[None]:
        """Counts the worker as waiting for a job until the block ends."""
        self._polling[worker_id] = self._polling.get(worker_id, 0) + 1
        try:
            yield
        finally:
            self._polling[worker_id] -= 1
            if not self._polling[worker_id]:
                del self._polling[worker_id]

    def take(self, worker_id: str, count: int) -> list[dict[str, Any]]:
        """Gives the worker up to ``count`` jobs from the head of the queue, in the SDK's format.

        Jobs are left for waiting workers that hold fewer jobs, so that a worker with several slots
        does not take a whole batch while another worker is idle.
        """
        taken: list[dict[str, Any]] = []
        if worker_id in self._leaving:
            return taken
        load = self.load(worker_id)
        while len(taken) < count:
            if len(self._queue) <= self._waiting_with_less(load + len(taken), worker_id):
                break
            job = self._queue.popleft()
            job.status, job.worker_id, job.started_s = "IN_PROGRESS", worker_id, self._clock()
            self._running[job.job_id] = job
            taken.append({"id": job.job_id, **job.request})
        return taken

    def take_stops(self, worker_id: str) -> list[str]:
        """Returns the ids of the jobs that the worker must stop now; each id only once."""
        stops = self._stops.get(worker_id, {})
        due = [job_id for job_id, not_before_s in stops.items() if not_before_s <= self._clock()]
        for job_id in due:
            del stops[job_id]
        return due

    def post_result(self, worker_id: str, job_id: str, body: dict[str, Any]) -> None:
        """Takes a post of the SDK to ``job-done``: a progress update, or the result.

        A post is ignored if the worker does not hold the job any more: because it was cancelled or
        timed out, or because the result came before the progress update.
        """
        job = self._held(worker_id, job_id)
        if job is None:
            return
        job.output = body.get("output")
        if body.get("status") == "IN_PROGRESS":
            return
        error = body.get("error")
        if error:
            job.error = error if isinstance(error, str) else json.dumps(error)
        self._finish(job, "FAILED" if error else "COMPLETED")

    def refuse_result(self, worker_id: str, job_id: str, reason: str) -> None:
        """Ends a job whose result was refused. Otherwise it would seem to run for ever."""
        job = self._held(worker_id, job_id)
        if job is not None:
            job.output, job.error = None, reason
            self._finish(job, "FAILED")

    def post_stream(self, worker_id: str, job_id: str, chunk: dict[str, Any]) -> None:
        """Takes a value of a generator handler; ignored if the worker does not hold the job."""
        job = self._held(worker_id, job_id)
        if job is not None:
            job.stream.append(chunk)

    def load(self, worker_id: str) -> int:
        """Returns how many jobs the worker has in progress."""
        return sum(job.worker_id == worker_id for job in self._running.values())

    # Called by the endpoint and the worker pool.

    def leave(self, worker_id: str) -> None:
        """Gives the worker no further jobs; it may finish those that it holds."""
        self._leaving.add(worker_id)

    def is_leaving(self, worker_id: str) -> bool:
        """Whether the worker gets no further jobs."""
        return worker_id in self._leaving

    def worker_gone(self, worker_id: str) -> None:
        """Returns the jobs of an ended worker to the head of the queue, each only once."""
        self.leave(worker_id)
        self._stops.pop(worker_id, None)
        held = [job for job in self._running.values() if job.worker_id == worker_id]
        for job in reversed(held):
            if job.retries >= MAX_RETRIES:
                job.error = f"job timed out after {job.retries} retries"
                self._finish(job, "FAILED")
                continue
            job.retries += 1
            self._retried += 1
            job.status, job.worker_id, job.started_s, job.output = "IN_QUEUE", None, None, None
            job.stream.clear()
            del self._running[job.job_id]
            self._queue.appendleft(job)

    def tick(self) -> None:
        """Ends the jobs whose time is over, and removes old finished jobs."""
        now_s = self._clock()
        for job in [*self._queue, *self._running.values()]:
            if now_s - job.created_s >= job.ttl_s:
                self._stop(job, "TIMED_OUT", "ttl exceeded")
                self._drop_at_s[job.job_id] = now_s  # RunPod removes such a job
            elif job.started_s is not None and now_s - job.started_s >= job.execution_timeout_s:
                self._stop(job, "TIMED_OUT", "executionTimeout exceeded")
        surplus = len(self._drop_at_s) - KEEP_FINISHED
        for index, (job_id, drop_at_s) in enumerate(list(self._drop_at_s.items())):
            if index < surplus or drop_at_s <= now_s:
                self._drop_outputs(self._jobs[job_id])
                del self._drop_at_s[job_id], self._jobs[job_id]

    def has_stops(self) -> bool:
        """Whether a worker has not fetched its stop signals yet."""
        return any(self._stops.values())

    def counts(self) -> dict[str, int]:
        """Returns the ``jobs`` part of ``/health``; a job that timed out counts as failed."""
        return {
            "completed": self._ended["COMPLETED"],
            "failed": self._ended["FAILED"] + self._ended["TIMED_OUT"],
            "inProgress": len(self._running),
            "inQueue": len(self._queue),
            "retried": self._retried,
        }

    def ended(self) -> dict[Status, int]:
        """Returns how many jobs have ended, by status."""
        return dict(self._ended)

    def _check_space(self) -> None:
        if len(self._queue) >= self._max_queue_size:
            raise QueueFull(
                f"{len(self._queue)} jobs wait already (MAX_QUEUE_SIZE); send this one again later"
            )

    def _keep(self, value: Any) -> Any:
        return value if self._outputs is None else self._outputs.keep(value)

    def _drop_outputs(self, job: Job) -> None:
        if self._outputs is not None:
            self._outputs.drop(job.output)
            self._outputs.drop(job.request)

    def _held(self, worker_id: str, job_id: str) -> Job | None:
        job = self._running.get(job_id)
        return job if job is not None and job.worker_id == worker_id else None

    def _waiting_with_less(self, load: int, worker_id: str) -> int:
        return sum(other != worker_id and self.load(other) < load for other in self._polling)

    def _stop(self, job: Job, status: Status, error: str | None = None) -> None:
        if job.status == "IN_QUEUE":
            self._queue.remove(job)
        elif job.worker_id is not None and job.started_s is not None:
            stops = self._stops.setdefault(job.worker_id, {})
            stops[job.job_id] = job.started_s + STOP_NOT_BEFORE_S
        job.error = error
        job.output = None
        self._finish(job, status)

    def _finish(self, job: Job, status: Status) -> None:
        self._running.pop(job.job_id, None)
        job.status = status
        job.finished_s = self._clock()
        if job.webhook:
            self.webhooks.append(job)
        # The input may hold megabytes of base64. It is needed again only for a retry.
        job.request = self._keep(job.request) if status in RETRYABLE else {}
        job.output = self._keep(job.output)
        self._ended[status] += 1
        self._drop_at_s[job.job_id] = job.finished_s + job.keep_s
