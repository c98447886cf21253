"""How results reach their client through the real handler: base64, links, limits, progress, streams."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from comfy_local.endpoint import LocalEndpoint
from comfy_local.endpoint.jobs import Jobs
from comfy_local.first_picture import write_files
from comfy_worker.comfyui.progress import INTERVAL_S
from tests import placeholders
from tests.e2e.conftest import Client, pictures
from tests.graphs import node
from tests.pictures import encoded
from tests.s3 import BUCKET, SECRET, Service, s3_service

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SMALL = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2, "seed": 1}
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def copies(count: int, width: int, height: int) -> dict[str, Any]:
    """A job whose result is noise, several times: three bytes a pixel, before base64."""
    noise = Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))
    graph = {
        "load": node("LoadImage", image="noise.png"),
        "repeat": node("RepeatImageBatch", image=["load", 0], amount=count),
        "save": node("SaveImage", images=["repeat", 0], filename_prefix="noise"),
    }
    return {"workflow": graph, "image": encoded(noise)}


def followed(
    client: Client, job_input: dict[str, Any], **more: Any
) -> tuple[dict[str, Any], list[Any]]:
    """A job of /run to its end: its last status, and the different outputs that it showed while in progress."""
    job_id = client.post("run", {"input": job_input, **more})["id"]
    shown: list[Any] = []
    deadline_s = time.monotonic() + 120
    while (job := client.get(f"status/{job_id}"))["status"] not in ENDED:
        assert time.monotonic() < deadline_s
        if job.get("output") is not None and job["output"] not in shown[-1:]:
            shown.append(job["output"])
        time.sleep(0.05)
    return job, shown


@contextmanager
def worker_with(model_root: Path, log_path: Path, **settings: str) -> Iterator[LocalEndpoint]:
    environ = {
        **os.environ,
        "MODELS_DIR": str(model_root),
        "SD_MODEL": placeholders.CHECKPOINT,
        **settings,
    }
    with LocalEndpoint(environ=environ, log_path=log_path) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("delivery")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with s3_service(folder / "s3.log") as started:
        yield started


@pytest.fixture
def s3(service: Service) -> Iterator[Service]:
    yield service
    service.proxy.fate = lambda _method, _path: ""


# A worker with storage.


@pytest.fixture(scope="module")
def first_progress() -> list[Any]:
    """What the first job of the worker with storage showed, sent while ComfyUI was booting."""
    return []


@pytest.fixture(scope="module")
def stored(
    model_root: Path, folder: Path, service: Service, first_progress: list[Any]
) -> Iterator[Client]:
    settings = {
        "BUCKET_ENDPOINT_URL": f"{service.proxy.url}/{BUCKET}",
        "BUCKET_ACCESS_KEY_ID": "AKIA",
        "BUCKET_SECRET_ACCESS_KEY": SECRET,
        "BUCKET_PREFIX": "made",
        "RESULT_LIMIT_MB": "0.05",
        "ALLOW_PRIVATE_URLS": "true",
    }
    with worker_with(model_root, folder / "stored.log", **settings) as endpoint:
        client = Client(endpoint.url)
        job, shown = followed(client, SMALL)
        assert job["status"] == "COMPLETED", job
        first_progress += shown
        yield client


def test_the_first_job_says_that_comfyui_is_starting(
    stored: Client, first_progress: list[Any]
) -> None:
    assert first_progress[0] == {"percent": 0, "message": "starting ComfyUI"}


def test_with_storage_a_result_holds_links_that_download(
    stored: Client, s3: Service, tmp_path: Path
) -> None:
    job = stored.runsync({**SMALL, "batch_size": 2})
    images = job["output"]["images"]
    assert [image["type"] for image in images] == ["s3_url", "s3_url"]
    for image in images:
        answer = requests.get(image["data"], timeout=10)
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.format, picture.size, len(answer.content)) == (
            "PNG",
            (64, 64),
            image["bytes"],
        )
        assert answer.headers["Content-Type"] == "image/png"
        assert f'filename="{image["filename"]}"' in answer.headers["Content-Disposition"]
        assert f"made/{job['id']}/{image['filename']}" in s3.stored()
    assert job["output"]["warnings"] == []
    first, second = write_files(job["output"], tmp_path / "a.png")
    assert (first.stat().st_size, second.stat().st_size) == (images[0]["bytes"], images[1]["bytes"])


def test_base64_can_be_asked_for_all_the_same(stored: Client) -> None:
    result = stored.output({**SMALL, "output": {"delivery": "base64"}})
    assert result["images"][0]["type"] == "base64"
    assert pictures(result)[0].size == (64, 64)


def test_results_too_large_for_base64_use_storage(stored: Client) -> None:
    result = stored.output({**copies(1, 150, 150), "output": {"delivery": "base64"}})
    assert result["images"][0]["type"] == "s3_url"
    assert any(
        "RunPod accepts at most 0.05 MB; so the files were put into storage" in text
        for text in result["warnings"]
    )


def test_files_rejected_by_storage_arrive_as_base64(stored: Client, s3: Service) -> None:
    before = s3.stored()
    s3.proxy.fate = lambda method, _path: "cut" if method == "PUT" else ""
    result = stored.output(SMALL)
    assert pictures(result)[0].size == (64, 64)
    (warning,) = result["warnings"]
    assert "did not accept the files" in warning
    assert warning.endswith("so the files came as base64")
    assert s3.stored() == before


def test_rejected_files_too_large_for_base64_fail(stored: Client, s3: Service) -> None:
    s3.proxy.fate = lambda method, _path: "refuse" if method == "PUT" else ""
    job = stored.runsync(copies(1, 150, 150))
    assert job["status"] == "FAILED"
    assert job["error"].startswith("DELIVERY_FAILED: the storage at http://127.0.0.1:")
    assert "SlowDown" in job["output"]["details"][0]["problem"]
    assert SECRET not in str(job)


# The worker that all tests share, which has none.


def s3_config(service: Service, **changes: Any) -> dict[str, Any]:
    own = {
        "accessId": "AKIA",
        "accessSecret": SECRET,
        "bucketName": BUCKET,
        "endpointUrl": service.proxy.url,
    }
    return {**own, **changes}


def test_a_job_may_bring_its_own_storage(stored: Client, s3: Service) -> None:
    job = stored.post("runsync?wait=60000", {"input": SMALL, "s3Config": s3_config(s3)})
    (image,) = job["output"]["images"]
    assert image["type"] == "s3_url"
    assert f"{job['id']}/{image['filename']}" in s3.stored()
    assert len(requests.get(image["data"], timeout=10).content) == image["bytes"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"accessSecret": ""}, "s3Config must be an object with"),
        ({"endpointUrl": "s3.example"}, "s3Config.endpointUrl should be a URL such as"),
        ({}, "s3Config.endpointUrl: 127.0.0.1 has an address that is not public"),
        (
            {"endpointUrl": "http://169.254.169.254"},
            "s3Config.endpointUrl: 169.254.169.254 has an address that",
        ),
        (
            {"endpointUrl": "http://s3.nowhere.invalid"},
            "s3Config.endpointUrl: the host s3.nowhere.invalid does not exist",
        ),
    ],
)
def test_unusable_job_storage_is_reported(
    worker: Client, s3: Service, changes: dict[str, str], error: str
) -> None:
    before = len(s3.proxy.seen)
    job = worker.post("runsync?wait=60000", {"input": SMALL, "s3Config": s3_config(s3, **changes)})
    assert job["error"].startswith(f"INVALID_VALUE: {error}")
    assert len(s3.proxy.seen) == before


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (
            {"delivery": "s3"},
            "INVALID_VALUE: output.delivery cannot be s3, since no storage is configured",
        ),
        (
            {"delivery": "ftp"},
            "INVALID_INPUT: output.delivery must be 'base64' or 's3', not \"ftp\"",
        ),
        ({"progress": "perhaps"}, "INVALID_INPUT: output.progress must be true or false"),
        (
            {"shrunk": True},
            "UNKNOWN_KEY: output.shrunk is not a key of the input; did you mean shrink?",
        ),
    ],
)
def test_an_output_that_cannot_be_had_is_told(
    worker: Client, output: dict[str, Any], error: str
) -> None:
    job = worker.runsync({**SMALL, "output": output})
    assert job["status"] == "FAILED"
    assert job["error"].startswith(error)


def test_runpods_limits_hold_where_there_is_no_storage(worker: Client) -> None:
    job_input = copies(3, 1000, 1000)  # 12 MB as base64
    job, _shown = followed(worker, job_input)
    assert job["status"] == "FAILED"
    assert job["error"].startswith("RESULT_TOO_LARGE: the result is 12")
    assert "RunPod accepts at most 10 MB" in job["error"]
    assert len(job["output"]["details"]) == 4
    assert len(pictures(worker.output(job_input))) == 3
    shrunk, _shown = followed(worker, {**job_input, "output": {"shrink": True}})
    assert {picture.format for picture in pictures(shrunk["output"])} == {"JPEG"}
    assert any("so the pictures were made JPEG" in text for text in shrunk["output"]["warnings"])


Post = tuple[float, str, Any]


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[Post]:
    """What workers post for their jobs, as it arrives: when, the status and the output."""
    posts: list[Post] = []
    post_result = Jobs.post_result

    def recording(jobs: Jobs, worker_id: str, job_id: str, body: dict[str, Any]) -> None:
        posts.append((time.monotonic(), str(body.get("status")), body.get("output")))
        post_result(jobs, worker_id, job_id, body)

    monkeypatch.setattr(Jobs, "post_result", recording)
    return posts


def run_until_posts(
    client: Client, posted: list[Post], enough: Callable[[], bool], **more: Any
) -> int:
    """Run ever longer jobs until one has posted enough updates; returns its number of steps.

    How long a step takes depends on the machine and on what else it does.
    """
    for steps in (20, 80, 320, 1280, 5120):
        posted.clear()
        job = client.runsync({**SMALL, "steps": steps, **more})
        assert job["status"] == "COMPLETED", job
        if enough():
            return steps
    raise AssertionError(f"no job posted enough: {posted}")


def test_progress_rises_and_never_arrives_late(worker: Client, posted: list[Post]) -> None:
    began = time.monotonic()
    steps = run_until_posts(worker, posted, lambda: len(posted) >= 4, seed=31)
    time.sleep(1)
    assert [status for _, status, _ in posted] == ["IN_PROGRESS"] * (len(posted) - 1) + ["None"]
    updates = [output for _, _, output in posted[:-1]]
    percents = [update["percent"] for update in updates]
    assert percents == sorted(percents)
    assert 0 <= percents[0] < percents[-1] <= 100
    ended = posted[-1][0]
    assert len(updates) <= 1 + (ended - began) / INTERVAL_S, "at most two a second"
    sampling = [update for update in updates if "step" in update]
    assert {update["node"] for update in sampling} == {"KSampler"}
    assert {update["steps"] for update in sampling} == {steps}
    # While a step takes long, time alone moves the percentage.
    assert len({(update["step"], update["percent"]) for update in sampling}) == len(sampling)
    assert not any("preview" in update for update in updates)


def test_status_shows_the_latest_progress(worker: Client, posted: list[Post]) -> None:
    job_id = worker.post("run", {"input": {**SMALL, "seed": 34, "steps": 10000}})["id"]
    shown: list[Any] = []
    for _ in range(3):
        output = wait_for_output(worker, job_id, shown)
        assert output in [update for _, _, update in posted]
        shown.append(output)
    worker.post(f"cancel/{job_id}")
    assert [output["percent"] for output in shown] == sorted(output["percent"] for output in shown)


def wait_for_output(client: Client, job_id: str, shown: list[Any]) -> Any:
    """Wait until the status of a job that runs shows an output that it has not shown yet."""
    deadline_s = time.monotonic() + 120
    while (output := client.get(f"status/{job_id}").get("output")) in [None, *shown]:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return output


def test_previews_are_sent_only_on_request(worker: Client, posted: list[Post]) -> None:
    def previews() -> list[str]:
        updates = [output for _, status, output in posted if status == "IN_PROGRESS"]
        return [update["preview"] for update in updates if "preview" in update]

    run_until_posts(worker, posted, lambda: bool(previews()), seed=32, output={"preview": True})
    for preview in previews():
        head, _, data = preview.partition(",")
        assert head == "data:image/jpeg;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.format == "JPEG"
        assert max(picture.size) <= 256


def test_progress_can_be_turned_off(worker: Client) -> None:
    job, shown = followed(worker, {**SMALL, "seed": 33, "steps": 10, "output": {"progress": False}})
    assert job["status"] == "COMPLETED"
    assert shown == []


# A worker that streams.


@pytest.fixture(scope="module")
def streaming(model_root: Path, folder: Path) -> Iterator[Client]:
    with worker_with(model_root, folder / "streaming.log", STREAMING="true") as endpoint:
        assert endpoint.wait_ready(300), (folder / "streaming.log").read_text()
        yield Client(endpoint.url)


def streamed(client: Client, job_input: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The values of a job's stream, and its last status."""
    job_id = client.post("run", {"input": job_input})["id"]
    values: list[Any] = []
    while True:
        answer = client.get(f"stream/{job_id}")
        values += [chunk["output"] for chunk in answer["stream"]]
        if answer["status"] in ENDED:
            return values, client.get(f"status/{job_id}")
        time.sleep(0.05)


def test_a_stream_ends_with_the_result(streaming: Client) -> None:
    values, job = streamed(streaming, {**SMALL, "steps": 12})
    assert job["status"] == "COMPLETED"
    assert job["output"] == values
    *before, result = values
    assert result["timings"]
    early = [value for value in before if "images" in value]
    assert [value["images"] for value in early] == [result["images"]]
    assert pictures(result)[0].size == (64, 64)
    percents = [value["percent"] for value in before if "percent" in value]
    assert len(percents) + len(early) == len(before)
    assert percents
    assert percents == sorted(percents)


def test_previews_without_outputs_are_the_result(streaming: Client) -> None:
    graph = {"make": node("EmptyImage", width=64, height=64, batch_size=1, color=255)}
    graph["show"] = node("PreviewImage", images=["make", 0])
    values, _job = streamed(streaming, {"workflow": graph})
    assert pictures(values[-1])[0].size == (64, 64)
    assert not any("images" in value for value in values[:-1])


def test_results_too_large_for_streams_are_in_status(streaming: Client) -> None:
    values, job = streamed(streaming, copies(1, 700, 700))
    assert not any("images" in value for value in values)
    (warning,) = job["output"][-1]["warnings"]
    assert "only the job's status" in warning
    assert pictures(job["output"][-1])[0].size == (700, 700)


def test_an_error_ends_a_stream(streaming: Client) -> None:
    values, job = streamed(streaming, {**SMALL, "sead": 1})
    assert values == []
    assert job["status"] == "FAILED"
    assert job["error"].startswith("UNKNOWN_KEY: sead")


def test_a_cancelled_stream_frees_the_worker(streaming: Client) -> None:
    job_id = streaming.post("run", {"input": {**SMALL, "steps": 10000}})["id"]
    deadline_s = time.monotonic() + 30
    while not streaming.get(f"stream/{job_id}")["stream"]:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    streaming.post(f"cancel/{job_id}")
    began = time.monotonic()
    assert streamed(streaming, SMALL)[1]["status"] == "COMPLETED"
    assert time.monotonic() - began < 60, "the worker was held by the cancelled job"
