"""RunPod's door: takes jobs from the runpod SDK and hands them to the walk in ``comfy_worker.runner``.

The only file that imports runpod. ComfyUI boots while the SDK is being imported; a job that arrives earlier waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType
from typing import Any, NoReturn

from comfy_worker import logs
from comfy_worker.errors import InvalidSettings
from comfy_worker.runner import JobRunner
from comfy_worker.runpod_worker.fitness import fitness_checks
from comfy_worker.settings import Settings

log = logging.getLogger("comfy_worker.handler")

Job = dict[str, Any]
Update = dict[str, Any]
Post = Callable[[Job, Update], Awaitable[None]]

CANCEL_WAIT_S = 30.0
POST_TIMEOUT_S = 5.0
RESULT_ATTEMPTS = 30  # with three seconds between most of them


class Jobs:
    """Runs jobs in threads, so that the SDK's loop keeps its heartbeat and fetches the next job meanwhile.

    Args:
        runner: does the work.
        concurrency: jobs at once, 1 or more.
    """

    def __init__(self, runner: JobRunner, concurrency: int) -> None:
        self._runner = runner
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="job")

    @asynccontextmanager
    async def running(self, job: Job) -> AsyncIterator[tuple[asyncio.Future[Any], asyncio.Queue[Update | None]]]:
        """A job's result to come, and what it tells on the way, None last; a block left early stops the job."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Update | None] = asyncio.Queue()
        cancelled = threading.Event()

        def tell(update: Update) -> None:
            loop.call_soon_threadsafe(told.put_nowait, update)

        run = contextvars.copy_context().run
        work = loop.run_in_executor(self._pool, run, self._runner.run, job, cancelled, tell)
        work.add_done_callback(lambda _work: told.put_nowait(None))
        try:
            yield work, told
        finally:
            cancelled.set()
            await asyncio.wait([work], timeout=CANCEL_WAIT_S)


def make_handler(
    jobs: Jobs, posting: Callable[[], AbstractAsyncContextManager[Post]]
) -> Callable[[Job], Awaitable[Any]]:
    """Make the handler that returns the result, and posts what the job tells on the way.

    Args:
        jobs: does the work.
        posting: gives a job's own way to post an update, which returns when RunPod has it. So none is under way
            when the result is; one that comes while another is being posted replaces those that wait.
    """

    async def handler(job: Job) -> Any:
        async with jobs.running(job) as (result, told), posting() as post:
            while (update := await _newest(told)) is not None:
                await post(job, update)
            return await result

    return handler


def make_stream_handler(jobs: Jobs, config: dict[str, Any]) -> Callable[[Job], AsyncIterator[Any]]:
    """Make the handler that yields what the job tells as it comes, and its result last.

    Args:
        jobs: does the work.
        config: the SDK's, told where the worker is to be replaced: of a stream's results it reads no such word.
    """

    async def handler(job: Job) -> AsyncIterator[Any]:
        async with jobs.running(job) as (result, told):
            while (update := await told.get()) is not None:
                yield update
            last = await result
            if isinstance(last, dict) and last.pop("refresh_worker", False):
                config["refresh_worker"] = True
            yield last

    return handler


async def _newest(told: asyncio.Queue[Update | None]) -> Update | None:
    update = await told.get()
    while not told.empty():
        update = told.get_nowait()
    return update


@asynccontextmanager
async def progress_posting() -> AsyncIterator[Post]:
    """The SDK's ``progress_update`` without its thread, whose update may arrive after the result."""
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    async with AsyncClientSession() as session:

        async def post(job: Job, update: Update) -> None:
            sent = asyncio.ensure_future(send_result(session, {"status": "IN_PROGRESS", "output": update}, job))
            try:
                # Not `wait_for`: before Python 3.12 it forgets a cancel that comes as the update arrives.
                done, _ = await asyncio.wait([sent], timeout=POST_TIMEOUT_S)
                if not done:
                    log.warning("a progress update was not taken", extra={"action": "progress.timeout"})
            finally:
                sent.cancel()

        yield post


class Leaving:
    """SIGTERM and SIGINT: no new job, those that run are done and delivered; a second signal ends at once.

    The SDK drops a job that reaches a request for jobs which was open when the signal came. So it gets to hear of
    the signal only when it asks for the next job, which is when no such request is open.

    Args:
        fetch: the SDK's own way to ask for jobs.
    """

    def __init__(self, fetch: Callable[[Any, int], Awaitable[Any]]) -> None:
        self._fetch = fetch
        self._sdk: dict[int, Any] = {}
        self._asked: int | None = None

    async def fetch(self, session: Any, count: int) -> Any:
        """Ask for jobs in the SDK's stead."""
        if not self._sdk:  # the SDK sets its own when its loop begins
            for number in (signal.SIGTERM, signal.SIGINT):
                self._sdk[number] = signal.signal(number, self._on_signal)
        if self._asked is not None:
            self._sdk[self._asked](self._asked, None)
            return None
        return await self._fetch(session, count)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = number
            log.info("finishing the jobs that run", extra={"action": "worker.leaving"})
            return
        end(128 + number)  # ComfyUI's guard sees to ComfyUI


def end(status: int) -> NoReturn:
    """End this process and wait for no thread: an upload that was given up may wait a minute for its storage."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(status)


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
        from aiohttp_retry import FibonacciRetry
        from runpod.serverless.modules import rp_http, rp_scale

        # The SDK offers a result three times within seven seconds, and then drops it.
        rp_http.FibonacciRetry = lambda attempts: FibonacciRetry(attempts=max(attempts, RESULT_ATTEMPTS))
        rp_scale.get_job = Leaving(rp_scale.get_job).fetch
        for check in fitness_checks(settings, os.environ):
            runpod.serverless.register_fitness_check(check)
        # A job that ran beside the last one would be lost with the worker.
        concurrency = 1 if settings.refresh_worker else settings.concurrency
        jobs = Jobs(runner, concurrency)
        config: dict[str, Any] = {
            "return_aggregate_stream": True,
            "concurrency_modifier": lambda _current: concurrency,
            "refresh_worker": settings.refresh_worker,
        }
        # The SDK streams for all jobs or for none: it looks at what kind of function the handler is.
        config["handler"] = (
            make_stream_handler(jobs, config) if settings.streaming else make_handler(jobs, progress_posting)
        )
        runpod.serverless.start(config)
    return 0


if __name__ == "__main__":
    end(main())
