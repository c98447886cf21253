"""Describes the routes for clients: as an OpenAPI document, and as a page of plain tables.

FastAPI's own pages load their scripts from the internet, so they are not used.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, JSONResponse

__all__ = ["OPERATIONS", "description_routes"]

TITLE = "A local endpoint with RunPod's API and Comfy's API v2"
RUNPOD, COMFY = "/v2/{endpoint_id}", "/api/v2"
ANY_OBJECT: dict[str, Any] = {"type": "object"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;"
    "border-bottom:1px solid #8888;vertical-align:top}code{overflow-wrap:anywhere}"
    ":root{color-scheme:light dark}"
)


class Operation(NamedTuple):
    """What a client can do with one path.

    Attributes:
        methods: HTTP methods; the first is the usual one.
        path: with its parameters in braces.
        summary: what it does.
        query: optional parameters of the query, and what they mean.
        body: the name of a schema, or a media type; empty: none.
    """

    methods: tuple[str, ...]
    path: str
    summary: str
    query: Mapping[str, str] = {}
    body: str = ""


WAIT = {"wait": "how long to wait, in milliseconds"}
OPERATIONS = (
    Operation(("post",), f"{RUNPOD}/run", "Queues a job and answers at once", body="Request"),
    Operation(
        ("post",), f"{RUNPOD}/runsync", "Queues a job and waits for its result", WAIT, "Request"
    ),
    Operation(
        ("get", "post"),
        f"{RUNPOD}/status/{{job_id}}",
        "Shows a job",
        {"ttl": "when to remove its result, in milliseconds from now"},
    ),
    Operation(
        ("get", "post"), f"{RUNPOD}/status-sync/{{job_id}}", "Waits for a job's result", WAIT
    ),
    Operation(
        ("get", "post"), f"{RUNPOD}/stream/{{job_id}}", "Shows what a job has streamed", WAIT
    ),
    Operation(("post",), f"{RUNPOD}/cancel/{{job_id}}", "Cancels a job"),
    Operation(("post",), f"{RUNPOD}/retry/{{job_id}}", "Queues a failed job again"),
    Operation(("get",), f"{RUNPOD}/requests", "Lists the jobs, without their outputs"),
    Operation(("post",), f"{RUNPOD}/purge-queue", "Cancels all queued jobs"),
    Operation(("get",), f"{RUNPOD}/health", "Counts jobs and workers"),
    Operation(("get",), f"{RUNPOD}/templates", "Lists the templates"),
    Operation(("get",), f"{RUNPOD}/templates/{{name}}", "Shows a template with its form"),
    Operation(("get",), f"{RUNPOD}/page.html", "The page as one file"),
    Operation(("get",), "/metrics", "Counts and measurements for Prometheus, as text"),
    Operation(("get",), f"{COMFY}/health", "Tells that the endpoint answers"),
    Operation(("post",), f"{COMFY}/jobs", "Queues a workflow in API format", body="ComfyRequest"),
    Operation(
        ("get",),
        f"{COMFY}/jobs",
        "Lists the jobs of Comfy's API",
        {"limit": "how many, at most 100", "cursor": "`next_cursor` of the page before"},
    ),
    Operation(("get",), f"{COMFY}/jobs/{{job_id}}", "Shows a job"),
    Operation(("post",), f"{COMFY}/jobs/{{job_id}}/cancel", "Cancels a job"),
    Operation(("get",), f"{COMFY}/jobs/{{job_id}}/workflow", "Shows the workflow of a job"),
    Operation(("get",), f"{COMFY}/jobs/{{job_id}}/events", "Follows a job: server-sent events"),
    Operation(("post",), f"{COMFY}/assets", "Stores a file", body="multipart/form-data"),
    Operation(("post",), f"{COMFY}/assets/from-hash", "Takes a file that is stored", body="Hash"),
    Operation(("head",), f"{COMFY}/assets/by-hash/{{digest}}", "Tells whether a file is stored"),
    Operation(("get",), f"{COMFY}/assets/{{asset_id}}", "Shows a file's properties"),
    Operation(("delete",), f"{COMFY}/assets/{{asset_id}}", "Removes a file"),
    Operation(("get", "head"), f"{COMFY}/assets/{{asset_id}}/content", "Returns a file's content"),
)


def description_routes(catalog_file: Path | None, *, has_key: bool) -> APIRouter:
    """Returns the routes ``/openapi.json`` and ``/docs``, which need no API key.

    Args:
        catalog_file: The file with the schema of a job's input, which a worker writes when ComfyUI
            is up; until then any object is shown as the input.
        has_key: Whether clients must send an API key.
    """
    router = APIRouter()

    @router.get("/openapi.json")
    def openapi() -> Response:
        return JSONResponse(_document(_input_schema(catalog_file), has_key=has_key))

    @router.get("/docs")
    def docs() -> Response:
        return HTMLResponse(_page(), headers={"Content-Security-Policy": POLICY})

    return router


def _input_schema(catalog_file: Path | None) -> dict[str, Any]:
    if catalog_file is None or not catalog_file.is_file():
        return ANY_OBJECT
    catalog = json.loads(catalog_file.read_text(encoding="utf-8"))
    return dict(catalog.get("request", ANY_OBJECT))


def _document(input_schema: dict[str, Any], *, has_key: bool) -> dict[str, Any]:
    schemas = _with_references(input_schema)
    security = {"key": {"type": "http", "scheme": "bearer"}}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        for method in operation.methods:
            paths.setdefault(operation.path, {})[method] = _described(operation, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": security if has_key else {}},
        "security": [{"key": []}] if has_key else [],
    }


def _with_references(input_schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of the bodies: those within a schema go beside it."""
    text = json.dumps(input_schema).replace('"#/$defs/', '"#/components/schemas/')
    moved = json.loads(text)
    beside = moved.pop("$defs", {})
    policy = {
        "type": "object",
        "properties": {name: {"type": "number"} for name in ("executionTimeout", "ttl")},
    }
    request = {
        "type": "object",
        "properties": {
            "input": {"$ref": "#/components/schemas/Input"},
            "webhook": {"type": "string", "format": "uri"},
            "policy": policy,
            "s3Config": ANY_OBJECT,
        },
        "required": ["input"],
    }
    comfy_request = {
        "type": "object",
        "properties": {
            "workflow": ANY_OBJECT,
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "extra_data": ANY_OBJECT,
        },
        "required": ["workflow"],
    }
    hash_request = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("hash", "file_path")},
        "required": ["hash"],
    }
    own = {"Input": moved, "Request": request, "ComfyRequest": comfy_request, "Hash": hash_request}
    return {**beside, **own}


def _described(operation: Operation, method: str) -> dict[str, Any]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    text = {"type": "string"}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in names
    ]
    for name, meaning in operation.query.items():
        parameters.append({"name": name, "in": "query", "description": meaning, "schema": text})
    described: dict[str, Any] = {
        "operationId": f"{method} {operation.path}",
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {"default": {"description": "the answer, or an error with its reason"}},
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    return described


def _content(body: str) -> dict[str, Any]:
    if "/" in body:
        file = {"type": "string", "format": "binary"}
        form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
        return {body: {"schema": form}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}


def _page() -> str:
    rows = []
    for operation in OPERATIONS:
        methods = ", ".join(method.upper() for method in operation.methods)
        query = "".join(f"<br><code>?{name}=</code> {text}" for name, text in _escaped(operation))
        rows.append(
            f"<tr><td>{methods}</td><td><code>{html.escape(operation.path)}</code></td>"
            f"<td>{html.escape(operation.summary)}{query}</td></tr>"
        )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(TITLE)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{html.escape(TITLE)}</h1>"
        '<p>Programs read <a href="/openapi.json">/openapi.json</a>.</p>'
        "<table><thead><tr><th>Method<th>Path<th>What it does</thead>"
        f"<tbody>{''.join(rows)}</tbody></table></html>"
    )


def _escaped(operation: Operation) -> list[tuple[str, str]]:
    return [(html.escape(name), html.escape(text)) for name, text in operation.query.items()]
