"""Waits that end early.

``asyncio.wait_for`` is not used: before Python 3.12 it forgets a cancel that comes in the moment in
which the wait ends, and the canceller waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["limited", "pause"]

T = TypeVar("T")


async def pause(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, but not longer than some seconds.

    Returns:
        Whether the event is set.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()
    return event.is_set()


async def limited(work: Coroutine[Any, Any, T], seconds: float) -> T | None:
    """Do something, but not longer than some seconds.

    Returns:
        What it returns; None where the time was over first.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    return task.result() if task.done() else None
