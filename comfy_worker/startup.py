"""Measures how long each phase of the worker's start takes, and logs them once, with the first job.

The phases overlap: the handler's imports run beside ComfyUI's boot. So each line names moments,
counted from the start of the process.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["StartTimes", "collect_garbage_rarely", "start_times"]

log = logging.getLogger(__name__)

PROCESS_STAT = Path("/proc/self/stat")
# How many new objects, and how many runs over the young ones, lead to a run of the collector.
# Python's own numbers (700, 10, 10) let it take 40 % of the time in which a large graph is planned.
COLLECT_AFTER = (20_000, 50, 10)
# In that file, the fields after the program's name; the start is the 22nd of all.
START_FIELD = 19


class StartTimes:
    """Moments of the start, each kept once.

    Args:
        began: when the process started, as ``time.monotonic()`` counts.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._is_logged = False
        self._listeners: list[Callable[[], None]] = []
        self._text = "starting"

    def mark(self, moment: str) -> None:
        """Note that a moment is now; only the first of each name counts.

        Args:
            moment: a name such as ``imports``.
        """
        with self._lock:
            self._seconds.setdefault(moment, time.monotonic() - self._began)
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function each time that a moment is marked from now on."""
        self._listeners.append(listener)

    def say(self, text: str) -> None:
        """Note in words what the worker does now."""
        self._text = text

    def has(self, *moments: str) -> bool:
        """Whether all these moments have come."""
        with self._lock:
            return all(moment in self._seconds for moment in moments)

    def state(self) -> dict[str, Any]:
        """Return what the worker does now, and the moments so far: ``{"state", "seconds"}``."""
        with self._lock:
            seconds = {name: round(value, 2) for name, value in self._seconds.items()}
        return {"state": self._text, "seconds": seconds}

    def log_once(self) -> None:
        """Log all moments, the first time that this is called."""
        with self._lock:
            if self._is_logged:
                return
            self._is_logged = True
            moments = sorted(self._seconds.items(), key=lambda item: item[1])
        parts = [f"{name} {seconds:.2f} s" for name, seconds in moments]
        log.info("start: %s", ", ".join(parts), extra={"action": "worker.start_times"})


def _process_began() -> float:
    """Return when this process started; now where the system does not say."""
    now = time.monotonic()
    try:
        fields = PROCESS_STAT.read_text(encoding="utf-8").rpartition(")")[2].split()
        since_boot = int(fields[START_FIELD]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - max(age, 0.0)


start_times = StartTimes(_process_began())


def collect_garbage_rarely() -> None:
    """Search for circles of garbage again, but rarely, and not among what was imported.

    ``handler.py`` turns the search off while it imports.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
