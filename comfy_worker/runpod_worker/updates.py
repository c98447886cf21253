"""Posts a job's updates before its end: its progress, or the values of its stream.

An update is worth little once there is a newer one. So at most one update is being posted, newer
progress replaces older progress, and an update that RunPod refuses is dropped. The result waits
only a moment for updates.
"""

from __future__ import annotations

import asyncio
from typing import Any

from runpod.serverless.modules import rp_http

from comfy_worker.outgoing import to_json_bytes
from comfy_worker.response.deliver import STREAM_LIMIT
from comfy_worker.runpod_worker.pauses import pause
from comfy_worker.runpod_worker.results import ResultPoster

__all__ = ["JobUpdates"]

Update = dict[str, Any]

TRY_S = 5.0
LAST_MOMENT_S = 0.5
# A client that reads only the stream waits for its last values.
STREAM_END_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
# No client reads the progress of a job that ends sooner, and posting it delays the result.
PROGRESS_AFTER_S = 0.2
# How many updates may wait to be posted; the result repeats the files among them.
MOST_WAITING = 8
# How many bytes of the list of all values may be progress.
PROGRESS_SHARE = 500_000


class JobUpdates:
    """The updates of one job.

    Args:
        poster: posts to RunPod.
        job_id: RunPod's.
        streaming: whether they are values of a stream, or progress that ``/status`` shows.
    """

    def __init__(self, poster: ResultPoster, job_id: str, streaming: bool) -> None:
        template = rp_http.JOB_STREAM_URL if streaming else rp_http.JOB_DONE_URL
        self._url = template.replace("$ID", job_id) + "&isStream=false"
        self._poster = poster
        self._job_id = job_id
        self._streaming = streaming
        self._waiting: list[Update] = []
        self._has_news = asyncio.Event()
        self._over = asyncio.Event()
        self._progress_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.streamed: list[Any] = []

    def add(self, update: Update) -> None:
        """Take an update, which replaces progress that is still waiting."""
        if "percent" in update:
            self._waiting = [item for item in self._waiting if "percent" not in item]
        self._waiting = [*self._waiting, update][-MOST_WAITING:]
        self._has_news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._post_all())

    async def finish(self, last: Any = None) -> None:
        """End the updates. A stream posts its waiting values and the last one first.

        Args:
            last: the job's result where it is the last value of a stream.
        """
        self._over.set()
        if self._streaming and last is not None:
            self._waiting.append(last)
            self._task = self._task or asyncio.create_task(self._post_all())
        self._has_news.set()
        if self._task is not None:
            if not self._streaming:
                self._waiting.clear()
            await asyncio.wait(
                [self._task], timeout=STREAM_END_S if self._streaming else LAST_MOMENT_S
            )
            # What RunPod was not handed any more is in the list of all values, which it gets with
            # the result.
            for update in self._waiting:
                self._keep(update)
            self.cancel()

    def cancel(self) -> None:
        """Stop posting."""
        if self._task is not None:
            self._task.cancel()

    async def _post_all(self) -> None:
        pause_s = FIRST_PAUSE_S
        if not self._streaming:
            await pause(self._over, PROGRESS_AFTER_S)
        while self._waiting or not self._over.is_set():
            if not self._waiting:
                self._has_news.clear()
                await self._has_news.wait()
                continue
            update = self._waiting.pop(0)
            self._keep(update)
            if await self._is_taken(update):
                pause_s = FIRST_PAUSE_S
            else:
                await pause(self._over, pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _is_taken(self, update: Any) -> bool:
        posted = {"output": update}
        if not self._streaming:
            posted["status"] = "IN_PROGRESS"
        body = await asyncio.to_thread(to_json_bytes, posted)
        if len(body) > STREAM_LIMIT:
            return True  # RunPod would not take it; the list of all values has it
        outcome = await self._poster.try_once(self._url, self._job_id, body, TRY_S)
        return isinstance(outcome, int) and 200 <= outcome < 300

    def _keep(self, update: Any) -> None:
        """Remember a value for the list of all values, without the large preview images."""
        if isinstance(update, dict) and "percent" in update:
            update = {key: value for key, value in update.items() if key != "preview"}
            self._progress_bytes += len(to_json_bytes(update))
            if self._progress_bytes > PROGRESS_SHARE:
                return
        self.streamed.append(update)
