"""How long each stage of a job takes. Knows nothing of what a stage is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from comfy_worker.errors import JobTimedOut
from comfy_worker.stop import Stop

__all__ = ["Clock"]


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
