"""Why and when the work on a job must end early: somebody cancelled it, or its time is over.

Owns the clock of one job. Knows nothing of what is being done; whoever waits asks here again and again.
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

__all__ = ["TICK_S", "Clock", "Stop"]

T = TypeVar("T")

TICK_S = 0.1
"""How often whoever waits should ask, in seconds."""


class Stop:
    """The end that may come early; may be shared by threads.

    Args:
        cancelled: set by another thread to end the work.
        timeout_s: how long the work may take, from now on.
    """

    def __init__(self, cancelled: threading.Event | None = None, timeout_s: float = math.inf) -> None:
        self._cancelled = cancelled or threading.Event()
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    @property
    def is_due(self) -> bool:
        """Whether the work must end now."""
        return self._cancelled.is_set() or time.monotonic() >= self._deadline

    def check(self) -> None:
        """Go on, or raise.

        Raises:
            JobCancelled: it was cancelled.
            JobTimedOut: its time is over.
        """
        if self._cancelled.is_set():
            raise JobCancelled("the job was cancelled")
        if self.is_due:
            raise JobTimedOut(
                f"the job was not done after {self._timeout_s:g} s; ask for less, or allow more by "
                "policy.executionTimeout or JOB_TIMEOUT_S"
            )

    def wait_for(self, work: Future[T]) -> T:
        """What other threads make, unless the end comes first; they are then left to themselves."""
        while not wait([work], timeout=TICK_S).done:
            self.check()
        return work.result()


class Clock:
    """The stages of one job; none begins once the job must end.

    Args:
        stop: when the job must end.

    Attributes:
        stages: by name, milliseconds.
    """

    def __init__(self, stop: Stop) -> None:
        self.stages: dict[str, int] = {}
        self._stop = stop
        self._began = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a block; the name goes into the error of a job whose time is over."""
        began = time.monotonic()
        try:
            self._stop.check()
            yield
        except JobTimedOut as error:
            error.details.append({"stage": name})
            raise
        finally:
            self.stages[name] = round((time.monotonic() - began) * 1000)

    def total_ms(self) -> int:
        """Milliseconds since the clock was made."""
        return round((time.monotonic() - self._began) * 1000)
