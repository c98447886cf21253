"""The HTTP routes of the local endpoint: RunPod's public API, and the API for the SDK's job loop.

The routes translate between HTTP and ``Jobs``, and hold long polls. Any endpoint id in the path is
accepted. Clients need an API key only if the endpoint was started with one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from comfy_local.page import catalog_routes, page_routes

from .api_key import UNAUTHORIZED, Unauthorized, key_check
from .api_v2 import PATH as API_V2_PATH
from .api_v2 import ApiV2
from .bodies import read_json
from .changes import Changes
from .job import STREAM_LIMIT_BYTES, BadRequest, Job, TooLarge, limit_bytes
from .jobs import Jobs, QueueFull, UnknownJob
from .metrics import EndpointMetrics, metrics_routes
from .openapi import description_routes
from .workers import WorkerPool

__all__ = ["CATALOG_NAME", "METRICS_FOLDER", "create_app"]

CATALOG_NAME = "templates.json"
METRICS_FOLDER = "metrics"

# How long a worker's poll is held. The SDK notices a SIGTERM from elsewhere only when its polls
# return, so this limits how late it ends.
POLL_HOLD_S = 5.0
RUNSYNC_WAIT_MS = 90_000
RUNSYNC_WAIT_RANGE_MS = (1_000, 300_000)
# Python's client of RunPod gives up a request for a stream after ten seconds.
STREAM_WAIT_MS = 8_000
STREAM_WAIT_RANGE_MS = (0, 90_000)
RETRY_AFTER_S = 5
# Pages of this machine may call the endpoint. Other pages may not: a browser that visits one would
# let it run jobs here.
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"

_REFUSALS: dict[type[Exception], int] = {
    BadRequest: 400,
    UnknownJob: 404,
    TooLarge: 413,
    QueueFull: 429,
}

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def create_app(
    jobs: Jobs,
    changes: Changes,
    workers: WorkerPool,
    api_v2: ApiV2,
    folder: Path,
    api_key: str | None = None,
) -> FastAPI:
    """Returns the application; it and its arguments belong to one event loop.

    Args:
        jobs: The jobs of the endpoint.
        changes: Wakes the requests that wait.
        workers: The worker pool.
        api_v2: Comfy's API for the same jobs.
        folder: Where a worker lists the templates for the page (`CATALOG_NAME`), and each worker
            saves its metrics (`METRICS_FOLDER`).
        api_key: The key that clients must send as ``Authorization: Bearer KEY``; None for none.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(
        CORSMiddleware,
        allow_origin_regex=LOCAL_ORIGINS,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
    )
    for_clients = [Depends(key_check(api_key))] if api_key else []
    catalog_file = folder / CATALOG_NAME
    for router in (
        _submit_routes(jobs, changes),
        _job_routes(jobs, changes),
        _endpoint_routes(jobs, changes, workers),
        catalog_routes(catalog_file),
    ):
        app.include_router(router, prefix="/v2/{endpoint_id}", dependencies=for_clients)
    for router in (_poll_routes(jobs, changes, workers), _post_routes(jobs, changes, workers)):
        app.include_router(router, prefix="/v2/{endpoint_id}")
    metrics = EndpointMetrics(jobs, workers, folder / METRICS_FOLDER)
    app.include_router(metrics_routes(metrics), dependencies=for_clients)
    app.include_router(page_routes())
    app.include_router(description_routes(catalog_file, has_key=bool(api_key)))
    app.mount(API_V2_PATH, api_v2.app(api_key))
    _add_error_answers(app)
    return app


def _add_error_answers(app: FastAPI) -> None:
    """Makes every error a JSON object with the text in `error`, as RunPod's are."""

    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, QueueFull) else None
        return JSONResponse(
            {"error": str(error)}, status_code=_REFUSALS[type(error)], headers=headers
        )

    async def unauthorized(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"error": UNAUTHORIZED}, status_code=401)

    async def not_found(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        text = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
        return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)

    for error_class in _REFUSALS:
        app.add_exception_handler(error_class, refuse)
    app.add_exception_handler(Unauthorized, unauthorized)
    app.add_exception_handler(HTTPException, not_found)


def _submit_routes(jobs: Jobs, changes: Changes) -> APIRouter:
    """The routes to which clients send jobs."""
    router = APIRouter()

    async def submit(request: Request, *, sync: bool) -> Job:
        job = jobs.submit(await read_json(request, limit_bytes(sync=sync)), sync=sync)
        changes.notify()
        return job

    @router.post("/run")
    async def run(request: Request) -> Response:
        return JSONResponse((await submit(request, sync=False)).describe())

    @router.post("/runsync")
    async def runsync(request: Request) -> Response:
        wait_ms = _wait_ms(request, RUNSYNC_WAIT_MS, RUNSYNC_WAIT_RANGE_MS)
        job = await submit(request, sync=True)
        await changes.wait_for(lambda: job if job.finished else None, wait_ms / 1000)
        return JSONResponse(job.describe())

    @router.post("/retry/{job_id}")
    async def retry(job_id: str) -> Response:
        job = jobs.retry(job_id)
        changes.notify()
        return JSONResponse(job.describe())

    return router


def _job_routes(jobs: Jobs, changes: Changes) -> APIRouter:
    """The routes of clients for one job."""
    router = APIRouter()

    @router.api_route("/status/{job_id}", methods=["GET", "POST"])
    async def status(job_id: str, request: Request) -> Response:
        job = jobs.get(job_id)
        if "ttl" in request.query_params:
            jobs.keep_for(job, _milliseconds(request, "ttl") / 1000)
        return JSONResponse(job.describe())

    @router.api_route("/status-sync/{job_id}", methods=["GET", "POST"])
    async def status_sync(job_id: str, request: Request) -> Response:
        job = jobs.get(job_id)
        wait_ms = _wait_ms(request, RUNSYNC_WAIT_MS, RUNSYNC_WAIT_RANGE_MS)
        await changes.wait_for(lambda: job if job.finished else None, wait_ms / 1000)
        return JSONResponse(job.describe())

    @router.api_route("/stream/{job_id}", methods=["GET", "POST"])
    async def stream(job_id: str, request: Request) -> Response:
        job = jobs.get(job_id)
        wait_ms = _wait_ms(request, STREAM_WAIT_MS, STREAM_WAIT_RANGE_MS)
        await changes.wait_for(lambda: job if job.stream or job.finished else None, wait_ms / 1000)
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

    @router.get("/requests")
    async def requests() -> Response:
        shown = [job.describe(with_output=False) for job in reversed(jobs.all())]
        return JSONResponse({"requests": shown})

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
        changes.notify()
        return Response()

    return router


async def _result(request: Request, job_id: str, limit: int) -> dict[str, Any]:
    try:
        body = await read_json(request, limit)
        if not isinstance(body, dict):
            raise BadRequest("a result must be a JSON object")
    except BadRequest as error:
        _log.warning("action=result.refused job_id=%s reason=%s", job_id, error)
        raise
    return body


def _wait_ms(request: Request, default_ms: int, range_ms: tuple[int, int]) -> int:
    if "wait" not in request.query_params:
        return default_ms
    shortest_ms, longest_ms = range_ms
    return min(max(_milliseconds(request, "wait"), shortest_ms), longest_ms)


def _milliseconds(request: Request, name: str) -> int:
    text = request.query_params[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise BadRequest(f'"{name}" must be a number of milliseconds, not {text[:40]!r}')
    return int(text)
