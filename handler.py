"""RunPod's door: takes jobs from the runpod SDK and hands them to the walk in ``comfy_worker.run``.

The only file that imports runpod. ComfyUI boots while the SDK is being imported; a job that arrives earlier waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from comfy_worker import logs
from comfy_worker.errors import InvalidSettings
from comfy_worker.run import JobRunner
from comfy_worker.settings import Settings

log = logging.getLogger("comfy_worker.handler")

Job = dict[str, Any]
CANCEL_WAIT_S = 30.0


def make_handler(runner: JobRunner, concurrency: int) -> Callable[[Job], Awaitable[dict[str, Any]]]:
    """Make the SDK's handler.

    The blocking work runs in a thread, so that the SDK's loop keeps its heartbeat, hears of a cancel at once, and
    fetches the next job meanwhile.

    Args:
        runner: does the work.
        concurrency: jobs at once, 1 or more.
    """
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="job")

    async def handler(job: Job) -> dict[str, Any]:
        cancelled = threading.Event()
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(pool, context.run, runner.run, job, cancelled)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([work], timeout=CANCEL_WAIT_S)
            raise

    return handler


def main() -> int:
    """Start ComfyUI and the SDK's job loop; returns when the loop has ended."""
    try:
        settings = Settings.from_env(os.environ)
    except InvalidSettings as error:
        sys.exit(f"{error.code}: {error}")
    logs.configure(settings.log_level)
    # At its default level the SDK logs every result, pictures included.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    with JobRunner.started(settings) as runner:
        import runpod

        runpod.serverless.start(
            {
                "handler": make_handler(runner, settings.concurrency),
                "concurrency_modifier": lambda _current: settings.concurrency,
            }
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
