"""Says when the work on a job must end early, and measures its stages.

A job ends early if its client cancels it or its time is over. Every wait checks this repeatedly.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from comfy_worker.errors import JobCancelled, JobTimedOut

__all__ = ["TICK_S", "Deadline", "StageTimer"]

T = TypeVar("T")

TICK_S = 0.1
"""How often a wait should check its deadline, in seconds."""


class Deadline:
    """A time limit that can also be cancelled; may be shared by threads.

    Args:
        cancelled: set by another thread to end the work.
        timeout_s: how long the work may take, from now on.
    """

    def __init__(
        self, cancelled: threading.Event | None = None, timeout_s: float = math.inf
    ) -> None:
        self._cancelled = cancelled or threading.Event()
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._held_since: float | None = None

    def hold(self) -> None:
        """Note that the work waits for other work of this worker until :meth:`resume`.

        The wait does not count towards the time limit. But work that has waited for its whole time
        ends: RunPod counts from the moment at which the worker took the job.
        """
        with self._lock:
            if self._held_since is None:
                self._held_since = time.monotonic()

    def resume(self) -> None:
        """Note that the work goes on: it gets back the time for which it waited."""
        with self._lock:
            if self._held_since is not None:
                self._ends_at += time.monotonic() - self._held_since
                self._held_since = None

    @property
    def is_due(self) -> bool:
        """Whether the work must end now."""
        return self._cancelled.is_set() or time.monotonic() >= self._ends_at

    @property
    def left_s(self) -> float:
        """How long the work may still take, in seconds; never negative."""
        return max(self._ends_at - time.monotonic(), 0.0)

    def part(self, timeout_s: float) -> Deadline:
        """Return a deadline for a part of the work, which is cancelled along with the whole."""
        return Deadline(self._cancelled, min(timeout_s, self.left_s))

    def check(self) -> None:
        """Raise an error if the work must end now.

        Raises:
            JobCancelled: the job was cancelled.
            JobTimedOut: its time is over.
        """
        if self._cancelled.is_set():
            raise JobCancelled("the job was cancelled")
        if self.is_due:
            raise JobTimedOut(
                f"the job was not done after {self._timeout_s:g} s; ask for less, or raise "
                "policy.executionTimeout or JOB_TIMEOUT_S"
            )

    def wait_for(self, work: Future[T]) -> T:
        """Wait for another thread's result; if the work must end first, abandon that thread."""
        while not wait([work], timeout=TICK_S).done:
            self.check()
        return work.result()


class StageTimer:
    """Measures the stages of one job; no stage begins once the job must end.

    Args:
        deadline: when the job must end.

    Attributes:
        stages: by name, milliseconds.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.stages: dict[str, int] = {}
        self._deadline = deadline
        self._began = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of a block; the error of a job that runs out of time names the stage."""
        began = time.monotonic()
        try:
            self._deadline.check()
            yield
        except JobTimedOut as error:
            error.details.append({"stage": name})
            raise
        finally:
            self.stages[name] = round((time.monotonic() - began) * 1000)

    def total_ms(self) -> int:
        """Return the milliseconds since the timer was created."""
        return round((time.monotonic() - self._began) * 1000)
