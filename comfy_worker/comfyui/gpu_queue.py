"""Tracks this worker's jobs in ComfyUI's queue, and stops the clock of those that wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from comfy_worker.deadline import Deadline

__all__ = ["GpuQueue", "QueuedJob"]


class QueuedJob:
    """One job in the queue; see :meth:`GpuQueue.entered`.

    Args:
        queue: the queue.
        deadline: the job's; its clock stands still while the job waits for another one.
        is_first: whether no other job was in the queue when this job entered it.
    """

    def __init__(self, queue: GpuQueue, deadline: Deadline, *, is_first: bool) -> None:
        self._queue = queue
        self.deadline = deadline
        self.is_first = is_first
        self.has_started = False

    def note_start(self) -> None:
        """Note that ComfyUI runs the job."""
        if not self.has_started:
            self._queue.start(self)


class GpuQueue:
    """The jobs of this worker that are in ComfyUI's queue; may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[QueuedJob] = []

    @contextmanager
    def entered(self, deadline: Deadline) -> Iterator[QueuedJob]:
        """Count a job until the block ends.

        Args:
            deadline: the job's.
        """
        with self._lock:
            job = QueuedJob(self, deadline, is_first=not self._jobs)
            self._jobs.append(job)
            self._set_clocks()
        try:
            yield job
        finally:
            with self._lock:
                self._jobs.remove(job)
                self._set_clocks()
            deadline.resume()

    def start(self, job: QueuedJob) -> None:
        """Note that ComfyUI runs a job, whatever the order in which the jobs entered."""
        with self._lock:
            job.has_started = True
            self._set_clocks()

    def _set_clocks(self) -> None:
        """Stop the clock of each job that waits for another one, and start all others."""
        is_busy = any(job.has_started for job in self._jobs)
        for position, job in enumerate(self._jobs):
            if not job.has_started and (is_busy or position > 0):
                job.deadline.hold()
            else:
                job.deadline.resume()
