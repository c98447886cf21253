"""Waits that end early."""

from __future__ import annotations

import asyncio

__all__ = ["pause"]


async def pause(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, but not longer than some seconds.

    Returns:
        Whether the event is set.
    """
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
