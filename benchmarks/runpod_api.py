"""RunPod's side of one worker, for benchmarks: hands jobs out and takes results, as cheaply as it can.

The local endpoint is the better stand-in, but each of its requests costs more than a small job.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web

__all__ = ["BatchTimes", "JobFailed", "RunPodApi"]

HOLD_S = 5.0
JOB_LIMIT_S = 300.0
MOST_BYTES = 1_000_000_000
# How much of a posted body tells an update from a result, and a failed job from one with files.
HEAD_BYTES = 3000


class JobFailed(Exception):
    """A worker answered a job with an error, so no figure of this run counts."""


@dataclass
class BatchTimes:
    """How long a batch of jobs took.

    Attributes:
        job_ms: from the first job's arrival in the queue to the last result, divided by the jobs.
        worker_ms: for each job, from its handing out to its result.
    """

    job_ms: float
    worker_ms: list[float] = field(default_factory=list)


class RunPodApi:
    """The routes that the SDK's job loop calls, for one worker.

    Attributes:
        first_taken_at: when the worker took its first job, as ``time.perf_counter()`` counts.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._taken: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._errors: list[str] = []
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.first_taken_at: float | None = None
        self._url = ""

    async def start(self) -> None:
        """Listen on a free loopback port."""
        app = web.Application(client_max_size=MOST_BYTES)
        app.add_routes(
            [
                web.get("/job-take/{worker}", self._take),
                web.get("/job-take-batch/{worker}", self._take),
                web.get("/job-stop/{worker}", self._stop),
                web.post("/job-done/{worker}/{id}", self._finish),
                web.post("/job-stream/{worker}/{id}", self._ignore),
                web.get("/ping/{worker}", self._ignore),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    def environ(self) -> dict[str, str]:
        """Return what RunPod sets in a worker's environment."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self._url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self._url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self._url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{self._url}/ping/$RUNPOD_POD_ID?gpu=none",
            "RUNPOD_AI_API_KEY": "none",
            "RUNPOD_POD_ID": "benchmark",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_LOG_LEVEL": "WARN",
        }

    async def run(self, inputs: list[dict[str, Any]], *, at_once: bool) -> BatchTimes:
        """Have the worker do jobs, all at once or each when the one before is answered.

        Raises:
            JobFailed: a job was answered with an error.
            TimeoutError: a job was not answered within five minutes.
        """
        jobs = [{"id": uuid4().hex, "input": job_input} for job_input in inputs]
        batches = [jobs] if at_once else [[job] for job in jobs]
        began = time.perf_counter()
        for batch in batches:
            await self._give(batch)
        job_ms = (time.perf_counter() - began) * 1000 / len(jobs)
        if self._errors:
            raise JobFailed(self._errors[0])
        ids = [str(job["id"]) for job in jobs]
        return BatchTimes(job_ms, [(self._done[i] - self._taken[i]) * 1000 for i in ids])

    async def _give(self, jobs: list[dict[str, Any]]) -> None:
        ids = {str(job["id"]) for job in jobs}
        async with self._changed:
            self._waiting += jobs
            self._changed.notify_all()
        async with self._changed:
            are_done = self._changed.wait_for(lambda: ids <= self._done.keys())
            await asyncio.wait_for(are_done, JOB_LIMIT_S)

    async def _take(self, request: web.Request) -> web.Response:
        is_batch = "job-take-batch" in request.path
        count = int(request.query.get("batch_size", 1)) if is_batch else 1
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._waiting), HOLD_S)
            except asyncio.TimeoutError:
                return web.Response(status=204)
            jobs, self._waiting = self._waiting[:count], self._waiting[count:]
        now = time.perf_counter()
        self.first_taken_at = self.first_taken_at or now
        self._taken.update({job["id"]: now for job in jobs})
        return web.json_response(jobs if is_batch else jobs[0])

    async def _finish(self, request: web.Request) -> web.Response:
        body = await request.read()
        now = time.perf_counter()
        head = body[:HEAD_BYTES]
        if b"IN_PROGRESS" not in head:
            if b'"error"' in head and b'"images"' not in head:
                self._errors.append(head.decode(errors="replace"))
            async with self._changed:
                self._done[request.match_info["id"]] = now
                self._changed.notify_all()
        return web.json_response({})

    async def _stop(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(HOLD_S)
        return web.Response(status=204)

    async def _ignore(self, _request: web.Request) -> web.Response:
        return web.json_response({})
