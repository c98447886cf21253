"""Decides when a worker takes its next job: when the GPU is free, or is about to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfy_worker.comfyui.events import Disconnected, Event
from comfy_worker.comfyui.gpu_queue import GpuQueue, QueuedJob
from comfy_worker.comfyui.remaining import DurationMemory, RemainingTime
from comfy_worker.deadline import Deadline

__all__ = ["GpuTurn", "GpuTurns"]


class GpuTurn:
    """The time in which one workflow is in ComfyUI's queue.

    Args:
        job: its place in ComfyUI's queue.
        remaining: estimates how long it will still run.
        prefetch_s: how long before the end the next job is wanted, in seconds.
        release: called when the next job is wanted; maybe more than once.
    """

    def __init__(
        self,
        job: QueuedJob,
        remaining: RemainingTime,
        prefetch_s: float,
        release: Callable[[], None],
    ) -> None:
        self._job = job
        self._remaining = remaining
        self._prefetch_s = prefetch_s
        self._release = release

    def begin(self) -> None:
        """Release at once if the workflow took less than that before."""
        self._release_if_short(self._remaining.whole_s)

    def follow(self, event: Event | None) -> None:
        """Take note of an event of the workflow; None: time went by."""
        if event is not None and not isinstance(event, Disconnected):
            self._job.note_start()
        self._remaining.follow(event)
        self._release_if_short(self._remaining.seconds())

    def _release_if_short(self, seconds: float) -> None:
        if seconds < self._prefetch_s:
            self._release()


class GpuTurns:
    """The turns of all jobs of a worker; may be shared by threads.

    Args:
        prefetch_s: how long before the GPU is free the next job is wanted, in seconds.
    """

    def __init__(self, prefetch_s: float) -> None:
        self._prefetch_s = prefetch_s
        self._durations = DurationMemory()
        self._queue = GpuQueue()

    @contextmanager
    def taken(
        self, workflow: Mapping[str, Any], deadline: Deadline, release: Callable[[], None]
    ) -> Iterator[GpuTurn]:
        """Count a workflow as queued while the block lasts; a block that ends well releases.

        Args:
            workflow: what is queued.
            deadline: the job's; its clock stands still while the job waits for another one.
            release: called when the next job is wanted; maybe more than once.
        """
        remaining = RemainingTime(workflow, self._durations)
        with self._queue.entered(deadline) as job:
            turn = GpuTurn(job, remaining, self._prefetch_s, release)
            if job.is_first:
                turn.begin()
            yield turn
        release()
