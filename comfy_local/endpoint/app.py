"""The HTTP routes of the local endpoint: RunPod's public API, and the API for the SDK's job loop.

The routes translate between HTTP and ``Jobs``, and hold long polls. Any endpoint id in the path is
accepted, and the API key is never read, since the endpoint listens on loopback only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from .job import STREAM_LIMIT_BYTES, BadRequest, Job, TooLarge, limit_bytes
from .jobs import Jobs, QueueFull, UnknownJob
from .workers import WorkerPool

__all__ = ["Changes", "create_app"]

# How long a worker's poll is held. The SDK notices a SIGTERM from elsewhere only when its polls
# return, so this limits how late it ends.
POLL_HOLD_S = 5.0
RUNSYNC_WAIT_MS = 90_000
RUNSYNC_WAIT_RANGE_MS = (1_000, 300_000)

_REFUSALS: dict[type[Exception], int] = {
    BadRequest: 400,
    UnknownJob: 404,
    TooLarge: 413,
    QueueFull: 429,
}

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Changes:
    """Lets requests wait for a change of the jobs; belongs to one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Makes all waiting requests look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, look: Callable[[], _T | None], timeout_s: float) -> _T | None:
        """Looks now and after each change. Returns the result, or None when the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while (found := look()) is None and (left_s := deadline_s - time.monotonic()) > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
        return found


def create_app(jobs: Jobs, changes: Changes, workers: WorkerPool) -> FastAPI:
    """Returns the application; it and its arguments belong to one event loop."""
    app = FastAPI(openapi_url=None)
    for router in (
        _job_routes(jobs, changes),
        _endpoint_routes(jobs, changes, workers),
        _poll_routes(jobs, changes, workers),
        _post_routes(jobs, changes, workers),
    ):
        app.include_router(router, prefix="/v2/{endpoint_id}")

    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=_REFUSALS[type(error)])

    for error_class in _REFUSALS:
        app.add_exception_handler(error_class, refuse)
    return app


def _job_routes(jobs: Jobs, changes: Changes) -> APIRouter:
    """The routes of clients for one job."""
    router = APIRouter()

    async def submit(request: Request, *, sync: bool) -> Job:
        job = jobs.submit(await _json(request, limit_bytes(sync=sync)), sync=sync)
        changes.notify()
        return job

    @router.post("/run")
    async def run(request: Request) -> Response:
        return JSONResponse((await submit(request, sync=False)).describe())

    @router.post("/runsync")
    async def runsync(request: Request) -> Response:
        wait_ms = _wait_ms(request)
        job = await submit(request, sync=True)
        await changes.wait_for(lambda: job if job.finished else None, wait_ms / 1000)
        return JSONResponse(job.describe())

    @router.api_route("/status/{job_id}", methods=["GET", "POST"])
    async def status(job_id: str) -> Response:
        return JSONResponse(jobs.get(job_id).describe())

    @router.api_route("/stream/{job_id}", methods=["GET", "POST"])
    async def stream(job_id: str) -> Response:
        return JSONResponse(jobs.take_stream(job_id))

    @router.post("/cancel/{job_id}")
    async def cancel(job_id: str) -> Response:
        job = jobs.cancel(job_id)
        changes.notify()
        return JSONResponse({"id": job.job_id, "status": job.status})

    return router


def _endpoint_routes(jobs: Jobs, changes: Changes, workers: WorkerPool) -> APIRouter:
    """The routes of clients for the endpoint."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        return JSONResponse({"jobs": jobs.counts(), "workers": workers.counts()})

    @router.post("/purge-queue")
    async def purge_queue() -> Response:
        removed = jobs.purge()
        changes.notify()
        return JSONResponse({"removed": removed, "status": "completed"})

    return router


def _poll_routes(jobs: Jobs, changes: Changes, workers: WorkerPool) -> APIRouter:
    """The routes from which workers get jobs and stop signals."""
    router = APIRouter()

    async def poll(worker_id: str, look: Callable[[], list[_T]]) -> list[_T]:
        """Holds the poll until there is something for the worker, or the worker must end."""
        found = await changes.wait_for(
            lambda: look() or ([] if jobs.is_leaving(worker_id) else None), POLL_HOLD_S
        )
        return found or []

    async def take(worker_id: str, count: int) -> list[dict[str, Any]]:
        with jobs.polling(worker_id):
            taken = await poll(worker_id, lambda: jobs.take(worker_id, count))
        if taken:
            workers.mark_ready(worker_id)
        return taken

    @router.get("/job-take/{worker_id}")
    async def job_take(worker_id: str) -> Response:
        taken = await take(worker_id, 1)
        return JSONResponse(taken[0]) if taken else Response(status_code=204)

    @router.get("/job-take-batch/{worker_id}")
    async def job_take_batch(worker_id: str, batch_size: int) -> Response:
        taken = await take(worker_id, batch_size)
        return JSONResponse(taken) if taken else Response(status_code=204)

    @router.get("/job-stop/{worker_id}")
    async def job_stop(worker_id: str) -> Response:
        stops = await poll(worker_id, lambda: jobs.take_stops(worker_id))
        return JSONResponse({"jobsToStop": stops}) if stops else Response(status_code=204)

    @router.get("/ping/{worker_id}")
    async def ping() -> Response:
        return Response()

    return router


def _post_routes(jobs: Jobs, changes: Changes, workers: WorkerPool) -> APIRouter:
    """The routes to which workers post results and stream values."""
    router = APIRouter()

    @router.post("/job-done/{worker_id}/{job_id}")
    async def job_done(worker_id: str, job_id: str, request: Request) -> Response:
        limit = limit_bytes(sync=job_id.startswith("sync-"))
        try:
            result = await _result(request, job_id, limit)
        except TooLarge as error:
            jobs.refuse_result(worker_id, job_id, f"the result was refused: {error}")
            changes.notify()
            raise
        jobs.post_result(worker_id, job_id, result)
        changes.notify()
        if result.get("stopPod"):
            workers.refresh(worker_id)
        return Response()

    @router.post("/job-stream/{worker_id}/{job_id}")
    async def job_stream(worker_id: str, job_id: str, request: Request) -> Response:
        jobs.post_stream(worker_id, job_id, await _result(request, job_id, STREAM_LIMIT_BYTES))
        return Response()

    return router


async def _json(request: Request, limit: int) -> object:
    """Returns the body, which is JSON under any content type.

    Args:
        request: Its body is always read to the end, so that its sender can read the answer.
        limit: The largest number of bytes.

    Raises:
        TooLarge: The body has more bytes.
        BadRequest: The body is not JSON, or cannot be written as JSON again. NaN and Infinity,
            which Python reads and writes, are not JSON.
    """
    received, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            received += chunk
    if size > limit:
        raise TooLarge(f"the body has {size:,} bytes, but RunPod accepts at most {limit:,}")
    try:
        body: object = json.loads(received, parse_constant=_no_constant)
        # A value that cannot be written (1e400, half a surrogate pair) could not reach a worker.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError too
        raise BadRequest(f"the request body is not JSON: {error}") from error
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


async def _result(request: Request, job_id: str, limit: int) -> dict[str, Any]:
    try:
        body = await _json(request, limit)
        if not isinstance(body, dict):
            raise BadRequest("a result must be a JSON object")
    except BadRequest as error:
        _log.warning("action=result.refused job_id=%s reason=%s", job_id, error)
        raise
    return body


def _wait_ms(request: Request) -> int:
    text = request.query_params.get("wait", str(RUNSYNC_WAIT_MS))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise BadRequest(f'"wait" must be a number of milliseconds, not {text[:40]!r}')
    shortest_ms, longest_ms = RUNSYNC_WAIT_RANGE_MS
    return min(max(int(text), shortest_ms), longest_ms)
