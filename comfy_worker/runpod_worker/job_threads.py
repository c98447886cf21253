"""Runs jobs in threads, so that the event loop keeps posting and taking meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

from comfy_worker.runner import JobRunner

__all__ = ["Envelope", "JobThreads", "Update"]

Envelope = dict[str, Any]
Update = dict[str, Any]

CANCEL_WAIT_S = 30.0


class JobThreads:
    """A pool of threads for jobs.

    Args:
        runner: does the work.
        count: how many jobs run at once, 1 or more; further ones wait.
    """

    def __init__(self, runner: JobRunner, count: int) -> None:
        self._runner = runner
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="job")

    @asynccontextmanager
    async def running(
        self,
        job: Envelope,
        on_update: Callable[[Update], None],
        on_release: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[asyncio.Future[Any]]:
        """Start a job in a thread. Leaving the block cancels the job and waits for its end.

        Args:
            job: RunPod's.
            on_update: gets the job's updates, in the event loop.
            on_release: called in the event loop when the next job is wanted.

        Yields:
            A future of its result.
        """
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def update(value: Update) -> None:
            loop.call_soon_threadsafe(on_update, value)

        released = threading.Event()

        def release() -> None:
            if not released.is_set():
                released.set()
                loop.call_soon_threadsafe(on_release)

        run = copy_context().run
        work = self._pool.submit(run, self._runner.run, job, cancelled, update, release)
        try:
            yield asyncio.wrap_future(work)
        finally:
            cancelled.set()
            if not work.done() and not work.cancel():
                await asyncio.wait([asyncio.wrap_future(work)], timeout=CANCEL_WAIT_S)

    def close(self) -> None:
        """Take no more jobs."""
        self._pool.shutdown(wait=False)
