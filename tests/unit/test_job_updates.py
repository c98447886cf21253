"""When a job's progress is posted."""

from __future__ import annotations

import asyncio
from typing import Any

from comfy_worker.runpod_worker.updates import PROGRESS_AFTER_S, JobUpdates


class CountingPoster:
    """Takes every update, and counts them."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def try_once(self, _url: str, _job_id: str, body: bytes, _timeout_s: float) -> int:
        self.bodies.append(body)
        return 200


def posted(duration_s: float, *, streaming: bool = False) -> list[bytes]:
    """What a job posts that reports progress at its start and ends after some seconds."""

    async def job() -> list[bytes]:
        poster: Any = CountingPoster()
        updates = JobUpdates(poster, "job-1", streaming)
        updates.add({"percent": 0, "message": "x"})
        await asyncio.sleep(duration_s)
        await updates.finish({"images": []} if streaming else None)
        bodies: list[bytes] = poster.bodies
        return bodies

    return asyncio.run(job())


def test_short_job_posts_no_progress() -> None:
    assert posted(0) == []


def test_longer_job_posts_its_progress() -> None:
    bodies = posted(PROGRESS_AFTER_S + 0.3)
    assert len(bodies) == 1
    assert b"IN_PROGRESS" in bodies[0]


def test_short_stream_posts_every_value() -> None:
    assert len(posted(0, streaming=True)) == 2
