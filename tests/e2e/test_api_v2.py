"""Comfy's API v2 in front of the endpoint, called by the real comfy-sdk.

Most tests run a handler of a few lines, which answers what its workflow says; the last ones run the
worker with ComfyUI.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from comfy_low.errors import BlobNotFound, HashMismatch
from comfy_sdk import (
    AsyncComfy,
    Comfy,
    ComfyError,
    IdempotencyKeyReuse,
    InvalidWorkflow,
    JobFailed,
    MissingAsset,
    NotFound,
    Unauthorized,
)
from comfy_sdk.events import Log, OutputReady, Preview, Progress, StatusChange
from PIL import Image

from comfy_local.endpoint import Address, LocalEndpoint
from comfy_local.endpoint.api_v2 import uploads
from tests import placeholders
from tests.e2e.conftest import Client

pytestmark = pytest.mark.e2e

HANDLER = """
import asyncio, json, sys
import runpod

async def handler(job):
    given = job["input"]
    wanted = given["workflow"]["1"]["inputs"]
    for update in wanted.get("updates", []):
        runpod.serverless.progress_update(job, update)
        await asyncio.sleep(0.4)
    await asyncio.sleep(wanted.get("sleep_s", 0))
    if wanted.get("echo"):
        return {"files": [], "texts": [
            {"type": "text", "data": json.dumps(given), "mime_type": "text/plain", "node_id": "1"}]}
    return wanted.get("answer", {})

print("action=comfyui.ready", file=sys.stderr, flush=True)
runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _now: 8})
"""

PIXEL = base64.b64encode(b"not really a picture").decode()
PREVIEW = "data:image/jpeg;base64," + base64.b64encode(b"small").decode()
SAVED = {"filename": "a.png", "type": "base64", "data": PIXEL, "mime_type": "image/png",
         "node_id": "9", "bytes": 20}  # fmt: skip
KEY = "secret"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def answering(answer: dict[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    """A workflow whose job returns this answer."""
    return {"1": node("Answer", answer=answer or {}, **inputs), "9": node("SaveImage")}


@contextmanager
def connected(url: str, key: str = KEY) -> Iterator[Comfy]:
    """The SDK as its users set it up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMFY_BASE_URL", url.split("/v2/")[0])
        patch.setenv("COMFY_API_KEY", key)
        with Comfy() as comfy:
            yield comfy


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEndpoint]:
    folder = tmp_path_factory.mktemp("api_v2")
    handler = folder / "handler.py"
    handler.write_text(HANDLER)
    with LocalEndpoint(
        address=Address(api_key=KEY),
        environ={**os.environ, "MAX_QUEUE_SIZE": "3"},
        handler=handler,
        log_path=folder / "worker.log",
    ) as endpoint:
        assert endpoint.wait_ready(60)
        yield endpoint


@pytest.fixture
def comfy(endpoint: LocalEndpoint) -> Iterator[Comfy]:
    with connected(endpoint.url) as comfy:
        yield comfy


def run(comfy: Comfy, graph: dict[str, Any]) -> Any:
    return comfy.run(comfy.workflows.from_json(graph), timeout=60)


def submit(comfy: Comfy, graph: dict[str, Any], **more: Any) -> Any:
    return comfy.submit(comfy.workflows.from_json(graph), **more)


def ask(endpoint: LocalEndpoint, method: str, path: str, **more: Any) -> requests.Response:
    root = endpoint.url.split("/v2/")[0]
    headers = {"Authorization": f"Bearer {KEY}", **more.pop("headers", {})}
    return requests.request(method, f"{root}/api/v2{path}", headers=headers, timeout=30, **more)


def test_outputs_are_assets(comfy: Comfy) -> None:
    text = {"type": "text", "data": "hello", "mime_type": "text/plain", "node_id": "4"}
    job = run(comfy, answering({"images": [SAVED], "texts": [text]}))
    assert job.status == "succeeded"
    (saved,) = job.get_outputs("9")
    assert (saved.name, saved.type, saved.content_type) == ("a.png", "image", "image/png")
    assert saved.to_bytes() == b"not really a picture"
    assert saved.to_bytes(range=(4, 9)) == b"really"
    assert saved.job_id == job.id
    (shown,) = job.get_outputs("4")
    assert (shown.type, shown.to_bytes()) == ("text", b"hello")
    assert comfy.assets.get(saved.id).hash.startswith("blake3:")
    assert comfy.jobs.get(job.id).outputs[0].id == saved.id


def test_a_link_is_answered_with_redirect(comfy: Comfy) -> None:
    linked = {**SAVED, "type": "s3_url", "data": "https://bucket.example/a.png?X=1"}
    (saved,) = run(comfy, answering({"images": [linked]})).outputs
    assert saved.get_download_url().url == "https://bucket.example/a.png?X=1"


def test_events_end_with_outputs_and_status(comfy: Comfy) -> None:
    update = {"percent": 50, "message": "step 1 of 2", "node_id": "1", "step": 1, "steps": 2}
    graph = answering(
        {"images": [SAVED], "warnings": ["a hint"]},
        updates=[{**update, "preview": PREVIEW}, {**update, "percent": 75, "step": 2}],
    )
    events = list(submit(comfy, graph).events())
    assert isinstance(events[0], StatusChange)
    assert events[-1] == StatusChange("succeeded")
    found = {type(event): event for event in events}
    assert found[Preview].data == b"small"
    assert found[Log].message == "a hint"
    assert found[OutputReady].output.to_bytes() == b"not really a picture"
    values = [event.value for event in events if isinstance(event, Progress)]
    assert values == sorted(values)
    assert {0.5, 1.0} <= set(values)
    assert any(isinstance(event, Progress) and event.steps == 2 for event in events)


def test_events_of_a_finished_job(comfy: Comfy) -> None:
    job = run(comfy, answering({"images": [SAVED]}))
    assert isinstance(next(e for e in job.events() if isinstance(e, OutputReady)), OutputReady)


def test_a_file_goes_along_as_image(comfy: Comfy, tmp_path: Path) -> None:
    path = tmp_path / "start.webm"
    path.write_bytes(b"some bytes")
    graph = {"1": node("Answer", echo=True), "2": node("LoadVideo"), "3": node("LoadVideo")}
    workflow = comfy.workflows.from_json(graph)
    asset = comfy.assets.from_file(path)
    workflow.set_input("2", "file", asset)
    workflow.set_input("3", "files", [asset])
    job = comfy.run(workflow, timeout=60)
    sent = json.loads(job.outputs[0].to_bytes())
    (image,) = sent["images"]
    assert base64.b64decode(image["image"]) == b"some bytes"
    assert image["name"].endswith(".webm")
    assert sent["workflow"]["2"]["inputs"]["file"] == image["name"]
    assert sent["workflow"]["3"]["inputs"]["files"] == [image["name"]]
    assert "seed" not in sent
    assert job.get_workflow().graph == sent["workflow"]


def test_equal_files_are_uploaded_once(comfy: Comfy, endpoint: LocalEndpoint) -> None:
    first = comfy.assets.from_bytes(b"the same", filename="a.png")
    second = comfy.assets.from_bytes(b"the same", filename="b.png")
    assert first.commit() != second.commit()
    assert (first.created_new, second.created_new) == (True, False)
    first.delete()
    url = comfy.assets.get(second.id).get_download_url().url
    headers = {"Authorization": f"Bearer {KEY}"}
    assert requests.get(url, headers=headers, timeout=30).content == b"the same"
    head = ask(endpoint, "HEAD", f"/assets/{second.id}/content")
    assert head.headers["Content-Length"] == "8"
    second_id = second.commit()
    second.delete()
    with pytest.raises(NotFound):
        comfy.assets.get(second_id)
    with pytest.raises(BlobNotFound, match="no asset has this hash"):
        comfy._low.asset_from_hash(first.hash)


def test_a_wrong_hash_is_refused(comfy: Comfy) -> None:
    with pytest.raises(HashMismatch):
        comfy._low.post_assets(io.BytesIO(b"x"), "image/png", "x.png", expected_hash="blake3:00")


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"data": b"x"}, 422, "invalid_request"),
        ({"files": {"other": b"x"}}, 422, "invalid_request"),
        (
            {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            422,
            "invalid_request",
        ),
        ({"files": {"file": b"x" * 2_000}}, 413, "payload_too_large"),
    ],
)
def test_malformed_uploads_are_refused(
    endpoint: LocalEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    status: int,
    code: str,
) -> None:
    monkeypatch.setattr(uploads, "MAX_ASSET_BYTES", 1_000)
    answer = ask(endpoint, "POST", "/assets", **more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_errors_of_a_job_name_its_node(comfy: Comfy) -> None:
    detail = {"node_id": "9", "class_type": "SaveImage", "message": "disk on fire"}
    failed = {
        "error": "EXECUTION_FAILED: node 9 failed",
        "code": "EXECUTION_FAILED",
        "message": "node 9 failed",
        "details": [detail],
    }
    with pytest.raises(JobFailed) as caught:
        run(comfy, answering(failed))
    error = caught.value.error
    assert (error.code, error.node_id, error.class_type) == (
        "node_execution_error",
        "9",
        "SaveImage",
    )
    assert error.message == "EXECUTION_FAILED: node 9 failed"


@pytest.mark.parametrize(
    ("graph", "error_class", "text"),
    [
        ({}, InvalidWorkflow, "API format"),
        ({"1": {"inputs": {}}}, InvalidWorkflow, "node 1 has no class_type"),
        ({"1": {"class_type": "A", "inputs": []}}, InvalidWorkflow, "not an object"),
        ({"nodes": [], "links": []}, InvalidWorkflow, "UI format"),
        (
            {"1": node("A", image={"__type": "core/ASSET", "info": {"id": "no"}})},
            MissingAsset,
            "no",
        ),
        ({"1": node("A", image=[{"__type": "core/ASSET"}])}, MissingAsset, "info.id"),
    ],
)
def test_malformed_workflows_are_refused(
    comfy: Comfy, graph: dict[str, Any], error_class: type[ComfyError], text: str
) -> None:
    with pytest.raises(error_class, match=text):
        submit(comfy, graph)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_request"),
        (b"[]", "invalid_request"),
        (b'{"workflow": {"1": {"class_type": "A"}}, "extra_data": {"x": 1}}', "invalid_request"),
        (b'{"workflow": {"1": {"class_type": "A"}}, "metadata": "x"}', "metadata_invalid"),
    ],
)
def test_malformed_requests_are_refused(endpoint: LocalEndpoint, body: bytes, code: str) -> None:
    answer = ask(endpoint, "POST", "/jobs", data=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["code"] == code


def test_an_idempotency_key_works_once(comfy: Comfy) -> None:
    submit(comfy, answering(), idempotency_key="once").wait(60)
    with pytest.raises(IdempotencyKeyReuse):
        submit(comfy, answering(), idempotency_key="once")


def test_jobs_are_listed_by_label(comfy: Comfy) -> None:
    jobs = [submit(comfy, answering(), metadata={"group": "a", "n": str(n)}) for n in range(3)]
    for job in jobs:
        job.wait(60)
    assert jobs[0].metadata == {"group": "a", "n": "0"}
    newest_first = [job.id for job in reversed(jobs)]
    assert [job.id for job in comfy.list_jobs(metadata={"group": "a"})] == newest_first
    assert [job.id for job in comfy.list_jobs(metadata={"group": "a"}, limit=1)] == newest_first
    assert [job.id for job in comfy.list_jobs(metadata={"n": "1", "group": "a"})] == [jobs[1].id]


def test_cancel_ends_a_running_job(comfy: Comfy) -> None:
    job = submit(comfy, answering(sleep_s=600))
    running = (e for e in job.events() if isinstance(e, StatusChange) and e.status == "running")
    next(running)
    assert job.cancel().status == "canceled"
    assert job.wait(60).status == "canceled"


def test_the_partner_key_reaches_the_worker(comfy: Comfy) -> None:
    graph = {"1": node("Answer", echo=True)}
    job = submit(comfy, graph, api_key="comfyui-1").wait(60)
    assert b'"comfy_org_api_key": "comfyui-1"' in job.outputs[0].to_bytes()


def test_a_full_queue_tells_when_to_retry(comfy: Comfy, endpoint: LocalEndpoint) -> None:
    jobs = []
    body = {"workflow": answering(sleep_s=600)}
    for _ in range(40):
        answer = ask(endpoint, "POST", "/jobs", json=body)
        if answer.status_code != 201:
            break
        jobs.append(answer.json()["id"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert answer.headers["Retry-After"]
    waiting = [comfy.jobs.get(job_id) for job_id in jobs]
    assert waiting[-1]._model.queue_position == 3
    for job in waiting:
        job.cancel()


def test_requests_need_the_api_key(endpoint: LocalEndpoint) -> None:
    with connected(endpoint.url, "wrong") as stranger, pytest.raises(Unauthorized):
        stranger.jobs.get("any")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/jobs/none", 404, "not_found"),
        ("POST", "/jobs/none/cancel", 404, "not_found"),
        ("GET", "/jobs/none/events", 404, "not_found"),
        ("GET", "/assets/none/content", 404, "not_found"),
        ("GET", "/no-such-path", 404, "not_found"),
        ("PUT", "/jobs", 405, "invalid_request"),
        ("GET", "/jobs?limit=0", 400, "invalid_request"),
        ("GET", "/jobs?cursor=none", 400, "invalid_cursor"),
    ],
)
def test_errors_have_a_code(
    endpoint: LocalEndpoint, method: str, path: str, status: int, code: str
) -> None:
    answer = ask(endpoint, method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_health_needs_no_worker(endpoint: LocalEndpoint) -> None:
    assert ask(endpoint, "GET", "/health").json()["status"] == "healthy"


def test_the_async_client_works_too(endpoint: LocalEndpoint) -> None:
    async def events_and_bytes(comfy: AsyncComfy) -> tuple[list[str], bytes]:
        workflow = comfy.workflows.from_json(answering({"images": [SAVED]}))
        job = await comfy.submit(workflow)
        seen = [type(event).__name__ async for event in job.events()]
        await job.result()
        return seen, await job.outputs[0].to_bytes()

    async def call() -> tuple[list[str], bytes]:
        async with AsyncComfy() as comfy:
            asset = comfy.assets.from_bytes(b"by the async client", filename="x.png")
            assert await asset.commit()
            return await events_and_bytes(comfy)

    with connected(endpoint.url):
        seen, content = asyncio.run(call())
    assert content == b"not really a picture"
    assert "OutputReady" in seen


# With the worker and ComfyUI.


@pytest.fixture
def real(worker: Client) -> Iterator[Comfy]:
    with connected(worker.url) as comfy:
        yield comfy


def picture(color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "PNG")
    return file.getvalue()


def shown(content: bytes) -> Any:
    return Image.open(io.BytesIO(content)).convert("RGB").getpixel((5, 5))


def test_comfyui_runs_with_an_asset(real: Comfy) -> None:
    graph = {"1": node("LoadImage"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    workflow = real.workflows.from_json(graph)
    workflow.set_input(
        "1", "image", real.assets.from_bytes(picture((9, 99, 199)), filename="p.png")
    )
    job = real.run(workflow, timeout=300)
    assert shown(job.get_outputs("2")[0].to_bytes()) == (9, 99, 199)


def test_the_graphs_seed_is_kept(real: Comfy, worker: Client) -> None:
    graph = sampling(7)
    job = submit(real, graph)
    events = list(job.events())
    assert events[-1] == StatusChange("succeeded")
    (same,) = worker.output({"workflow": graph})["images"]
    (other,) = worker.output({"workflow": graph, "seed": 8})["images"]
    pixels = Image.open(io.BytesIO(job.refresh().get_outputs("7")[0].to_bytes())).tobytes()
    assert pixels == Image.open(io.BytesIO(base64.b64decode(same["data"]))).tobytes()
    assert pixels != Image.open(io.BytesIO(base64.b64decode(other["data"]))).tobytes()


def sampling(seed: int) -> dict[str, Any]:
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=placeholders.CHECKPOINT),
        "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["4", 0],
            seed=seed, steps=2, cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="cat"),
    }  # fmt: skip


def test_an_unknown_node_is_named(real: Comfy) -> None:
    with pytest.raises(JobFailed) as caught:
        run(real, {"1": node("NoSuchNode")})
    error = caught.value.error
    assert (error.code, error.class_type) == ("invalid_workflow", "NoSuchNode")
