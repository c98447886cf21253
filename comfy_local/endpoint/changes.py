"""Lets requests wait until something has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["Changes"]

_T = TypeVar("_T")


class Changes:
    """Lets requests wait for a change of the jobs; belongs to one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Makes all waiting requests look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, look: Callable[[], _T | None], timeout_s: float) -> _T | None:
        """Looks now and after each change. Returns the result, or None when the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while (found := look()) is None and (left_s := deadline_s - time.monotonic()) > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
        return found
