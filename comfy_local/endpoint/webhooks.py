"""Calls the webhooks of finished jobs, as RunPod does: with two retries, ten seconds apart."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import requests

from .job import Job

__all__ = ["Webhooks"]

ATTEMPTS = 3
RETRY_PAUSE_S = 10.0
TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class Webhooks:
    """Posts what ``/status`` shows to the webhook of each finished job; belongs to one event loop.

    Args:
        due: the jobs whose webhook has not been called yet; `start_due` empties it.
    """

    def __init__(self, due: deque[Job]) -> None:
        self._due = due
        self._calls: set[asyncio.Task[None]] = set()

    def start_due(self) -> None:
        """Begin to call the webhooks that are due."""
        while self._due:
            job = self._due.popleft()
            assert job.webhook is not None
            call = asyncio.create_task(_call(job.webhook, job.job_id, job.describe()))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def close(self) -> None:
        """Give up the calls that have not succeeded yet."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


async def _call(url: str, job_id: str, body: dict[str, Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        problem = await asyncio.to_thread(_post, url, body)
        if not problem:
            _log.info("action=webhook.called job_id=%s attempt=%d", job_id, attempt)
            return
        _log.warning(
            "action=webhook.failed job_id=%s attempt=%d of=%d reason=%s",
            job_id, attempt, ATTEMPTS, problem,
        )  # fmt: skip
        if attempt < ATTEMPTS:
            await asyncio.sleep(RETRY_PAUSE_S)


def _post(url: str, body: dict[str, Any]) -> str:
    """Post a result once. Returns what went wrong, or an empty text."""
    try:
        answer = requests.post(url, json=body, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        return type(error).__name__
    return "" if answer.status_code == requests.codes.ok else f"HTTP {answer.status_code}"
