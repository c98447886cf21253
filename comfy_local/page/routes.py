"""The routes of the page: its files, the list of templates, and the page as one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from .single_file import STATIC, single_file

__all__ = ["catalog_routes", "page_routes"]

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
# Results may be links to a bucket, and the page may call an endpoint on RunPod.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob: https:; "
    "media-src 'self' data: blob: https:; connect-src 'self' https:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The files change with the program and have no version in their names.
    "Cache-Control": "no-cache",
}
NOT_YET = "ComfyUI is starting; the templates are listed when it is up"
RETRY_AFTER_S = 2
OF_FORMS = ("schema", "nodes", "inputs", "media")

Catalog = dict[str, Any]


def page_routes() -> APIRouter:
    """Return the routes of the page's files, which need no API key."""
    router = APIRouter()
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index() -> Response:
        return _file(files["index.html"])

    @router.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def file(name: str) -> Response:
        if name not in files:
            return JSONResponse({"error": f"the page has no file {name[:40]!r}"}, 404)
        return _file(files[name])

    return router


def catalog_routes(catalog_file: Path | None) -> APIRouter:
    """Return the routes that list the templates, for clients with the API key.

    Args:
        catalog_file: the file that a worker writes when ComfyUI is up; None: there will be none.
    """
    router = APIRouter()

    def answer(make: Callable[[Catalog], Response]) -> Response:
        catalog = _read(catalog_file)
        if catalog is None:
            return JSONResponse(
                {"error": NOT_YET}, 503, headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        return make(catalog)

    @router.get("/templates")
    def templates() -> Response:
        return answer(_without_forms)

    @router.get("/templates/{name}")
    def template(name: str) -> Response:
        return answer(lambda catalog: _template(catalog, name))

    @router.get("/page.html")
    def page() -> Response:
        return answer(_single_file)

    return router


def _read(catalog_file: Path | None) -> Catalog | None:
    if catalog_file is None:
        return None
    try:
        return dict(json.loads(catalog_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _without_forms(catalog: Catalog) -> Response:
    """The list for the gallery. The forms are read one by one, since they have 10 kB each."""
    rows = [_without_form(row) for row in catalog["templates"]]
    return JSONResponse({**catalog, "templates": rows})


def _without_form(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in OF_FORMS}


def _template(catalog: Catalog, name: str) -> Response:
    for row in catalog["templates"]:
        if row["name"] == name:
            return JSONResponse(row)
    return JSONResponse({"error": f"there is no template {name[:60]!r}"}, 404)


def _single_file(catalog: Catalog) -> Response:
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="comfy-worker.html"'}
    return Response(single_file(catalog), media_type=TYPES[".html"], headers=headers)


def _file(path: Path) -> Response:
    return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=HEADERS)
