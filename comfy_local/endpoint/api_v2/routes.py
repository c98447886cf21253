"""The HTTP routes of Comfy's API v2."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException

from comfy_local.endpoint.api_key import UNAUTHORIZED, Unauthorized, key_check
from comfy_local.endpoint.bodies import read_json
from comfy_local.endpoint.changes import Changes
from comfy_local.endpoint.job import BadRequest, TooLarge, limit_bytes
from comfy_local.endpoint.jobs import Jobs, QueueFull
from comfy_local.endpoint.outputs import OutputStore

from .assets import AssetStore
from .errors import ApiError, error_answer, invalid_request
from .events import follow
from .shapes import AssetShapes, JobShapes
from .submissions import Submissions
from .uploads import store_upload

__all__ = ["PATH", "ApiV2"]

PATH = "/api/v2"
RETRY_AFTER_S = 5
PAGE, LARGEST_PAGE = 50, 100
LABEL_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
# A file of a client must not act as a page of this endpoint.
FILE_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}


class ApiV2:
    """The API, its jobs and its files; belongs to one event loop.

    Args:
        jobs: The jobs of the endpoint.
        changes: Wakes the requests that wait.
        store: Keeps large workflows.
        clock: The clock of `jobs`.
    """

    def __init__(
        self, jobs: Jobs, changes: Changes, store: OutputStore, clock: Callable[[], float]
    ) -> None:
        self.jobs = jobs
        self.changes = changes
        self.assets = AssetStore()
        self.submissions = Submissions(jobs, self.assets, store, clock)

    def app(self, api_key: str | None) -> FastAPI:
        """Returns the application for the path `PATH`.

        Args:
            api_key: The key that clients must send; None for none.
        """
        needs_key = [Depends(key_check(api_key))] if api_key else []
        app = FastAPI(openapi_url=None, dependencies=needs_key)
        for router in (
            _job_routes(self),
            _follow_up_routes(self),
            _asset_routes(self.assets),
            _stored_asset_routes(self.assets),
        ):
            app.include_router(router)
        _add_error_answers(app)
        return app

    def shapes(self, request: Request) -> JobShapes:
        """Returns what writes jobs for the client of a request."""
        return JobShapes(_root(request), PATH, self.submissions)

    def close(self) -> None:
        """Removes every file."""
        self.assets.close()


def _root(request: Request) -> str:
    """Returns the URL under which a client reaches the API."""
    return f"{request.url.scheme}://{request.url.netloc}{PATH}"


def _add_error_answers(app: FastAPI) -> None:
    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        return error_answer(*_refusal(error))

    for error_class in (ApiError, BadRequest, TooLarge, QueueFull, Unauthorized, HTTPException):
        app.add_exception_handler(error_class, refuse)


def _refusal(error: Exception) -> tuple[ApiError, dict[str, str] | None]:
    """Returns the API's error for an exception, and the headers that go with it."""
    match error:
        case ApiError():
            return error, None
        case TooLarge():
            return ApiError(413, "payload_too_large", str(error)), None
        case QueueFull():
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return ApiError(429, "queue_full", str(error)), headers
        case Unauthorized():
            return ApiError(401, "unauthorized", UNAUTHORIZED), None
        case HTTPException(status_code=404):
            return ApiError(404, "not_found", "there is no such path in this API"), None
        case HTTPException():
            headers = dict(error.headers or {})
            return ApiError(error.status_code, "invalid_request", error.detail), headers
        case _:
            return ApiError(400, "invalid_request", str(error)), None


def _job_routes(api: ApiV2) -> APIRouter:
    """The routes for all jobs, and the health of the endpoint."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "healthy", "jobs": api.jobs.counts()})

    @router.post("/jobs")
    async def submit(request: Request) -> Response:
        body = await read_json(request, limit_bytes(sync=True))
        key = request.headers.get("Idempotency-Key")
        submission = api.submissions.submit(body, key)
        api.changes.notify()
        return JSONResponse(api.shapes(request).job(submission), status_code=201)

    @router.get("/jobs")
    async def list_jobs(request: Request) -> Response:
        query = request.query_params
        labels = {}
        for name, value in query.multi_items():
            label = LABEL_FILTER.fullmatch(name)
            if label is not None:
                labels[label[1]] = value
        limit = _limit(query)
        page, cursor = api.submissions.page(labels, limit, query.get("cursor"))
        shapes = api.shapes(request)
        body: dict[str, object] = {"jobs": [shapes.listed(submission) for submission in page]}
        if cursor is not None:
            body["next_cursor"] = cursor
        return JSONResponse(body)

    return router


def _follow_up_routes(api: ApiV2) -> APIRouter:
    """The routes for one job."""
    router = APIRouter(prefix="/jobs/{job_id}")

    @router.get("")
    async def get_job(job_id: str, request: Request) -> Response:
        return JSONResponse(api.shapes(request).job(api.submissions.get(job_id)))

    @router.post("/cancel")
    async def cancel(job_id: str, request: Request) -> Response:
        submission = api.submissions.get(job_id)
        api.jobs.cancel(job_id)
        api.changes.notify()
        return JSONResponse(api.shapes(request).job(submission))

    @router.get("/workflow")
    async def workflow(job_id: str) -> Response:
        graph = api.submissions.workflow(api.submissions.get(job_id))
        return JSONResponse({"workflow": graph, "format": "api"})

    @router.get("/events")
    async def events(job_id: str, request: Request) -> Response:
        submission = api.submissions.get(job_id)
        stream = follow(submission, api.submissions, api.shapes(request), api.changes)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return router


def _asset_routes(assets: AssetStore) -> APIRouter:
    """The routes that find and store files."""
    router = APIRouter(prefix="/assets")

    @router.post("")
    async def upload(request: Request) -> Response:
        asset, is_new = await store_upload(request, assets)
        shown = AssetShapes(_root(request)).asset(asset, created_new=is_new)
        return JSONResponse(shown, status_code=201 if is_new else 200)

    @router.post("/from-hash")
    async def from_hash(request: Request) -> Response:
        body = await read_json(request, limit_bytes(sync=False))
        digest = body.get("hash") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(digest, str):
            raise invalid_request("`hash` must be text such as blake3:9f8a...")
        name = body.get("file_path")
        asset = assets.add_same(digest, name if isinstance(name, str) else "")
        return JSONResponse(AssetShapes(_root(request)).asset(asset, created_new=False))

    @router.head("/by-hash/{digest}")
    async def by_hash(digest: str) -> Response:
        return Response(status_code=200 if assets.has_content(digest) else 404)

    return router


def _stored_asset_routes(assets: AssetStore) -> APIRouter:
    """The routes for one file."""
    router = APIRouter(prefix="/assets/{asset_id}")

    @router.get("")
    async def get_asset(asset_id: str, request: Request) -> Response:
        return JSONResponse(AssetShapes(_root(request)).asset(assets.get(asset_id)))

    @router.delete("")
    async def delete(asset_id: str) -> Response:
        assets.remove(asset_id)
        return Response(status_code=204)

    @router.api_route("/content", methods=["GET", "HEAD"])
    async def content(asset_id: str) -> Response:
        asset = assets.get(asset_id)
        if asset.path is None:
            return RedirectResponse(asset.link or "", status_code=302)
        return FileResponse(asset.path, media_type=asset.info.content_type, headers=FILE_HEADERS)

    return router


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    if text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= LARGEST_PAGE:
        return int(text)
    raise ApiError(400, "invalid_request", f"`limit` must be a number from 1 to {LARGEST_PAGE}")
