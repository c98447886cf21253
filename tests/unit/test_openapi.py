"""The endpoint's description of itself: it names every route for clients, and no other."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.testclient import TestClient

from comfy_local.endpoint.api_v2 import PATH, ApiV2
from comfy_local.endpoint.app import CATALOG_NAME, create_app
from comfy_local.endpoint.changes import Changes
from comfy_local.endpoint.jobs import Jobs
from comfy_local.endpoint.openapi import OPERATIONS
from comfy_local.endpoint.outputs import OutputStore
from comfy_local.endpoint.workers import WorkerPool
from comfy_worker.request.schema import input_schema

# The page's files, this description, and the routes of RunPod's workers.
NOT_FOR_CLIENTS = re.compile(
    r"/|/page/.*|/openapi.json|/docs|.*/(job-(take|done|stop|stream)|ping).*"
)


class Described:
    """An application without workers.

    Args:
        folder: may hold the file with the schema of the input.
    """

    def __init__(self, folder: Path) -> None:
        self.catalog = folder / CATALOG_NAME
        self.store = OutputStore()
        jobs, changes = Jobs(lambda: 0.0), Changes()
        self.api_v2 = ApiV2(jobs, changes, self.store, lambda: 0.0)
        # No route that a test calls asks for workers.
        pool = cast(WorkerPool, None)
        self.app = create_app(jobs, changes, pool, self.api_v2, folder, "key")
        self.client = TestClient(self.app)


@pytest.fixture
def described(tmp_path: Path) -> Iterator[Described]:
    made = Described(tmp_path)
    yield made
    made.api_v2.close()
    made.store.close()


def routes_of(app: FastAPI, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the methods and paths of an application, as FastAPI lists them."""
    with warnings.catch_warnings():
        # A function that serves GET and POST has one name for both.
        warnings.simplefilter("ignore", UserWarning)
        document = get_openapi(title="x", version="1", routes=app.routes)
    for path, operations in document["paths"].items():
        for method in operations:
            yield method, prefix + path


def test_every_route_for_clients_is_described(described: Described) -> None:
    routes = [*routes_of(described.app), *routes_of(described.api_v2.app(None), PATH)]
    found = {pair for pair in routes if not NOT_FOR_CLIENTS.fullmatch(pair[1])}
    listed = set()
    for operation in OPERATIONS:
        listed |= {(method, operation.path) for method in operation.methods}
    assert found == listed


def test_the_document_holds_the_inputs_schema(described: Described) -> None:
    schema = input_schema(4)
    described.catalog.write_text(json.dumps({"request": schema}))
    document = described.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"key": []}]
    body = {"$ref": "#/components/schemas/Request", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(body)
    assert validator.is_valid({"input": {"prompt": "a fox", "loras": [{"name": "a"}]}})
    assert not validator.is_valid({"input": {"prompt": 5}})
    assert not validator.is_valid({"input": {"loras": [{"strength": 1}]}})
    assert not validator.is_valid({"input": {"batch_size": 5}})


def test_references_in_the_document_resolve(described: Described) -> None:
    described.catalog.write_text(json.dumps({"request": input_schema()}))
    text = described.client.get("/openapi.json").text
    known: dict[str, Any] = json.loads(text)["components"]["schemas"]
    names = re.findall(r'"#/components/schemas/(\w+)"', text)
    assert names
    assert set(names) <= set(known)
    assert "$defs" not in text


def test_it_answers_before_comfyui_is_up(described: Described) -> None:
    document = described.client.get("/openapi.json").json()
    assert document["components"]["schemas"]["Input"] == {"type": "object"}


def test_the_page_lists_all_and_loads_nothing(described: Described) -> None:
    answer = described.client.get("/docs")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for operation in OPERATIONS:
        assert operation.path in answer.text
        assert operation.summary.replace("'", "&#x27;") in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")
