"""How RunPod is asked for jobs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from runpod.http_client import TooManyRequests

from comfy_worker.runpod_worker import take
from comfy_worker.runpod_worker.take import JobTaker


async def refuse(_session: Any, _count: int) -> None:
    raise TooManyRequests("HTTP 429")


def test_too_many_requests_are_followed_by_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(take, "TOO_MANY_PAUSE_S", 0.2)

    async def ask() -> float:
        taker = JobTaker(None, refuse, asyncio.Event())
        began = time.monotonic()
        assert (await taker.take(1, set())).jobs == []
        return time.monotonic() - began

    assert asyncio.run(ask()) >= 0.2


def test_shutdown_ends_that_pause() -> None:
    async def ask() -> float:
        ending = asyncio.Event()
        taker = JobTaker(None, refuse, ending)
        asking = asyncio.create_task(taker.take(1, set()))
        await asyncio.sleep(0.05)
        ending.set()
        began = time.monotonic()
        await asking
        return time.monotonic() - began

    assert asyncio.run(ask()) < take.TOO_MANY_PAUSE_S - 0.5


def test_a_job_that_ended_meanwhile_is_taken() -> None:
    in_progress = {"ended", "running"}

    async def get_job(_session: Any, _count: int) -> list[dict[str, Any]]:
        in_progress.discard("ended")
        return [{"id": "ended", "input": {}}, {"id": "running", "input": {}}]

    batch = asyncio.run(JobTaker(None, get_job, asyncio.Event()).take(2, in_progress))
    assert [job["id"] for job in batch.jobs] == ["ended"]
