"""Handlers for the SDK's own job loop, and for its local modes.

The SDK's loop runs if :mod:`sdk_shape` finds the SDK different from what our loop is built on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from comfy_worker.outgoing import safe
from comfy_worker.runpod_worker.job_threads import Envelope, JobThreads, Update

__all__ = ["make_handler", "make_stream_handler"]


def make_handler(threads: JobThreads) -> Callable[[Envelope], Awaitable[Any]]:
    """Make the handler that returns a job's result; its progress is not posted."""

    async def handler(job: Envelope) -> Any:
        async with threads.running(job, lambda _update: None) as result:
            return safe(await result)

    return handler


def make_stream_handler(
    threads: JobThreads, config: dict[str, Any]
) -> Callable[[Envelope], AsyncIterator[Any]]:
    """Make the handler that yields the files a job has finished early, and its result last.

    Args:
        threads: run the jobs.
        config: the SDK's. It reads ``refresh_worker`` there: in a stream's values it does not look
            for it.
    """

    async def handler(job: Envelope) -> AsyncIterator[Any]:
        updates: list[Update] = []
        async with threads.running(job, updates.append) as result:
            answer = safe(await result)
        for update in updates:
            if "percent" not in update:
                yield safe(update)
        if isinstance(answer, dict) and answer.pop("refresh_worker", False):
            config["refresh_worker"] = True
        yield answer

    return handler
