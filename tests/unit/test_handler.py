"""The handlers around a job that runs in a thread: order, what is left out, and a cancel."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest

from comfy_worker.runner import JobRunner
from handler import Jobs, Post, make_handler, make_stream_handler

Tell = Callable[[dict[str, Any]], None]


class Runner:
    """Tells five updates, then returns its result; or waits for the cancel."""

    def __init__(self) -> None:
        self.cancelled = False

    def run(self, job: dict[str, Any], cancelled: threading.Event, tell: Tell) -> dict[str, Any]:
        for number in range(5):
            tell({"number": number})
            time.sleep(0.02)
        if job.get("forever"):
            self.cancelled = cancelled.wait(10)
        return {"result": job["id"]}


@contextmanager
def jobs_of(runner: Runner) -> Iterator[Jobs]:
    jobs = Jobs(cast(JobRunner, runner), 2)
    try:
        yield jobs
    finally:
        jobs._pool.shutdown()


def test_updates_are_posted_one_by_one_the_newest_first_in_line_and_all_before_the_result() -> None:
    log: list[Any] = []

    @asynccontextmanager
    async def posting() -> AsyncIterator[Post]:
        async def post(job: dict[str, Any], update: dict[str, Any]) -> None:
            await asyncio.sleep(0.15)
            log.append((job["id"], update["number"]))

        yield post

    async def run() -> None:
        log.append(await make_handler(jobs, posting)({"id": "a"}))

    with jobs_of(Runner()) as jobs:
        asyncio.run(run())
    assert log in ([("a", 0), {"result": "a"}], [("a", 0), ("a", 4), {"result": "a"}])


def test_a_stream_has_every_update_and_the_result_last() -> None:
    async def run() -> list[Any]:
        return [value async for value in make_stream_handler(jobs, {})({"id": "a"})]

    with jobs_of(Runner()) as jobs:
        assert asyncio.run(run()) == [*({"number": number} for number in range(5)), {"result": "a"}]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_cancel_reaches_the_job_and_is_waited_for(streaming: bool) -> None:
    @asynccontextmanager
    async def posting() -> AsyncIterator[Post]:
        async def post(_job: dict[str, Any], _update: dict[str, Any]) -> None:
            """Takes no time."""

        yield post

    async def consume() -> None:
        job = {"id": "a", "forever": True}
        if not streaming:
            await make_handler(jobs, posting)(job)
        async for _value in make_stream_handler(jobs, {})(job):
            pass

    async def run() -> None:
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    runner = Runner()
    with jobs_of(runner) as jobs:
        asyncio.run(run())
    assert runner.cancelled


def test_a_streams_last_word_may_ask_for_a_fresh_worker() -> None:
    class Broken(Runner):
        def run(self, job: dict[str, Any], cancelled: threading.Event, tell: Tell) -> dict[str, Any]:
            return {"error": "X", "refresh_worker": True}

    async def run() -> list[Any]:
        return [value async for value in make_stream_handler(jobs, config)({"id": "a"})]

    config: dict[str, Any] = {}
    with jobs_of(Broken()) as jobs:
        assert asyncio.run(run()) == [{"error": "X"}]
    assert config == {"refresh_worker": True}
