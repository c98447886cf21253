"""Asks RunPod for jobs through the SDK's own ``get_job``, and reads any answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Coroutine
from typing import Any

from runpod.http_client import TooManyRequests

from comfy_worker.errors import InvalidInput
from comfy_worker.runpod_worker.entries import Batch, ids_in, parse, read_batch
from comfy_worker.runpod_worker.pauses import limited, pause

__all__ = ["JobTaker"]

log = logging.getLogger(__name__)

GetJob = Callable[[Any, int], Coroutine[Any, Any, Any]]

POLL_TIMEOUT_S = 90.0  # as the SDK's
TOO_MANY_PAUSE_S = 5.0  # as the SDK's
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# RunPod holds a request until there is a job; one answered sooner must not be repeated without a
# pause.
HELD_S = 0.5


class _Answer:
    """RunPod's answer to a request for jobs. ``json`` never fails, so that no job is lost.

    Args:
        answer: aiohttp's, which has everything else.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.unreadable: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    async def json(self) -> list[Any]:
        """Return the entries as a list: the SDK would drop a single job that has no input."""
        body = await self._answer.read()
        try:
            value = parse(body)
        except ValueError as error:
            self.unreadable = await asyncio.to_thread(ids_in, body)
            log.warning(
                "cannot read RunPod's answer: %s", error, extra={"action": "job.unreadable"}
            )
            return []
        return value if isinstance(value, list) else [value]


class _Session:
    """The SDK's HTTP session for one request for jobs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._request: Any = None
        self.answer: _Answer | None = None

    def get(self, url: str, **options: Any) -> _Session:
        self._request = self._session.get(url, **options)
        return self

    async def __aenter__(self) -> _Answer:
        self.answer = _Answer(await self._request.__aenter__())
        return self.answer

    async def __aexit__(self, *error: Any) -> None:
        await self._request.__aexit__(*error)


class JobTaker:
    """Asks for jobs again and again, with pauses where RunPod does not hold the request.

    Args:
        session: the SDK's HTTP session.
        get_job: the SDK's function of that name.
        ending: set when no job is wanted any more; it ends pauses.
    """

    def __init__(self, session: Any, get_job: GetJob, ending: asyncio.Event) -> None:
        self._session = session
        self._get_job = get_job
        self._ending = ending
        self._failures = 0

    async def take(self, count: int, in_progress: Container[str]) -> Batch:
        """Ask once for jobs, and wait until RunPod answers.

        Args:
            count: how many jobs are wanted, 1 or more.
            in_progress: ids of the jobs that this worker has already, when RunPod has answered.

        Returns:
            What RunPod handed out; an empty batch where it had nothing or could not be reached.
        """
        session = _Session(self._session)
        began = time.monotonic()
        try:
            entries = await limited(self._get_job(session, count), POLL_TIMEOUT_S)
        except TooManyRequests:
            await pause(self._ending, TOO_MANY_PAUSE_S)
            return Batch()
        except Exception as error:  # noqa: BLE001 (outermost: the worker must keep asking for jobs)
            self._failures += 1
            pause_s = min(FIRST_PAUSE_S * 2 ** min(self._failures, 10), LONGEST_PAUSE_S)
            reason = f"{type(error).__name__}: {error}"
            log.warning(
                "cannot ask RunPod for jobs: %s", reason, extra={"action": "job.take_failed"}
            )
            await pause(self._ending, pause_s)
            return Batch()
        self._failures = 0
        batch = read_batch(entries or [], in_progress)
        if session.answer is not None:
            unreadable = InvalidInput("the job cannot be read as JSON; it may be nested too deep")
            batch.refused.update(
                {
                    job_id: unreadable
                    for job_id in session.answer.unreadable
                    if job_id not in in_progress
                }
            )
        if not batch.jobs and time.monotonic() - began < HELD_S:
            await pause(self._ending, FIRST_PAUSE_S)
        return batch
