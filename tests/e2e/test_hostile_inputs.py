"""Inputs that mean harm: each is a clear error, and the worker goes on."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Client, pictures, serving
from tests.file_server import FILES, FileServer, file_server
from tests.graphs import node, txt2img

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

TIMEOUT_S = 2
# The server is reached by its name only, so that a redirect to an address leads elsewhere.
LIMITS = {
    "ALLOW_PRIVATE_URLS": "true",
    "ALLOWED_URL_HOSTS": "localhost",
    "INPUT_TIMEOUT_S": str(TIMEOUT_S),
    "MAX_INPUT_MB": "2",
}


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with file_server() as started:
        yield started


@pytest.fixture(scope="module")
def limited(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A worker with low limits that fetches from the server."""
    with serving(model_root, tmp_path_factory.mktemp("limited"), **LIMITS) as client:
        yield client


def data_uri(path: str, mime_type: str = "image/png") -> str:
    return f"data:{mime_type};base64," + base64.b64encode(FILES[path]).decode()


def from_image(image: Any) -> dict[str, Any]:
    """A graph whose picture is the one that is loaded, scaled."""
    return {
        "load": node("LoadImage", image=image),
        "scale": node(
            "ImageScale",
            image=["load", 0],
            upscale_method="area",
            width=32,
            height=32,
            crop="disabled",
        ),
        "save": node("SaveImage", images=["scale", 0], filename_prefix="test"),
    }


def goes_on(worker: Client) -> bool:
    return bool(pictures(worker.output({"workflow": from_image(data_uri("/photo.png"))})))


def refused(worker: Client, job_input: dict[str, Any], error: str) -> None:
    """The job fails with that error, and the next one succeeds."""
    job = worker.runsync(job_input)
    assert job["status"] == "FAILED", job
    assert job["error"].startswith(error), job["error"]
    assert goes_on(worker)


def img2img(image: str) -> dict[str, Any]:
    return {"workflow": "img2img", "image": image}


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/bomb.png", "INVALID_MEDIA: image has too many pixels; send at most 64,000,000"),
        (
            "/cut.png",
            "INVALID_MEDIA: image is a damaged or incomplete picture; send the complete file",
        ),
        ("/text.png", "INVALID_MEDIA: image cannot be decoded: the data is not a picture"),
        ("/clip.mp4", "INVALID_MEDIA: image cannot be decoded: the data is not a picture"),
    ],
)
def test_a_file_that_is_not_what_it_claims(
    limited: Client, server: FileServer, path: str, error: str
) -> None:
    refused(limited, img2img(data_uri(path)), error)
    refused(limited, img2img(f"http://localhost:{server.port}{path}"), error)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/large", "the file at localhost is too large; send at most 2 MB"),
        ("/endless", "the file at localhost is too large; send at most 2 MB"),
        ("/gzip", "localhost sends the file compressed; send it as base64"),
        ("/drip", "localhost took too long to send the file"),
        ("/silent", "localhost took too long to send the file"),
        ("/loop", "localhost redirects too often"),
        ("/redirect?to=http://127.0.0.1:1/photo.png", "this worker does not fetch from 127.0.0.1"),
        (
            "/redirect?to=http://169.254.169.254/latest/",
            "this worker does not fetch from 169.254.169.254",
        ),
        ("/missing?token=secret", "localhost answered 404; use a public URL, or send base64"),
    ],
)
def test_a_url_that_means_harm(limited: Client, server: FileServer, path: str, error: str) -> None:
    began = time.monotonic()
    job = limited.runsync(img2img(f"http://localhost:{server.port}{path}"))
    assert job["error"].startswith(f"INVALID_MEDIA: image: {error}"), job
    assert time.monotonic() - began < 60, "the file would take 200 s"
    assert "secret" not in str(job)
    assert goes_on(limited)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/photo.png",
        "http://localhost:{port}/photo.png",
        "http://[::ffff:127.0.0.1]:{port}/photo.png",
        "http://2130706433:{port}/photo.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
    ],
)
def test_by_itself_a_worker_reaches_public_addresses_only(
    worker: Client, server: FileServer, url: str
) -> None:
    before = len(server.seen)
    job = worker.runsync(img2img(url.format(port=server.port)))
    assert job["error"].startswith("INVALID_MEDIA: image: "), job
    assert (
        "has an address that is not public, but this worker downloads only from public addresses"
        in job["error"]
    )
    assert len(server.seen) == before


def test_another_scheme_than_http(worker: Client) -> None:
    refused(
        worker,
        img2img("file:///etc/passwd"),
        "INVALID_MEDIA: image must be base64, a data URI, or a URL",
    )


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (100, "INVALID_MEDIA: the input holds 100 files; send at most 32"),
        (10_000, "INVALID_INPUT: controlnets must be a list of at most 200 entries"),
    ],
)
def test_too_many_pictures(worker: Client, count: int, error: str) -> None:
    controls = [{"type": "canny", "image": "data:image/png;base64,"}] * count
    refused(worker, {"controlnets": controls}, error)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/hostname",
        "/etc/hostname",
        "example.png",
        "0123456789abcdef0123456789abcdef/0_image.png",
        "test_00001_.png [output]",
        {"__value__": "/etc/hostname"},
    ],
)
def test_files_that_were_not_sent_are_reported(worker: Client, name: Any) -> None:
    refused(
        worker,
        {"workflow": from_image(name)},
        "INVALID_VALUE: input image of node load (LoadImage) names '",
    )


@pytest.mark.parametrize("prefix", ["../../x", "x" * 300])
def test_a_graph_that_writes_elsewhere_or_cannot_write(worker: Client, prefix: str) -> None:
    graph = txt2img(save={"filename_prefix": prefix})
    refused(
        worker,
        {"workflow": graph},
        "INVALID_VALUE: filename_prefix of node save must be a text that stays",
    )


@pytest.mark.parametrize("path", ["/photo.png", "/photo", "/redirect?to=/photo.png"])
def test_a_good_url_is_a_picture(limited: Client, server: FileServer, path: str) -> None:
    graph = from_image("example.png")
    by_url = limited.output({"workflow": graph, "image": f"http://localhost:{server.port}{path}"})
    name = "/photo" if path == "/photo" else "/photo.png"
    wrong_type = limited.output({"workflow": graph, "image": data_uri(name, "audio/mpeg")})
    assert pictures(by_url)[0].tobytes() == pictures(wrong_type)[0].tobytes()


def test_a_graph_may_contain_a_url(limited: Client, server: FileServer) -> None:
    url = f"http://localhost:{server.port}/photo.png"
    for job_input in (
        {"workflow": from_image(url)},
        {"workflow": from_image("example.png"), "overrides": {"load.image": url}},
    ):
        assert pictures(limited.output(job_input))[0].size == (32, 32)


def test_a_graph_takes_video_and_sound(limited: Client, server: FileServer) -> None:
    graph = {
        "clip": node("LoadVideo", file=f"http://localhost:{server.port}/clip.mp4"),
        "frames": node("GetVideoComponents", video=["clip", 0]),
        "tone": node("LoadAudio", audio=data_uri("/tone.flac")),
        "pictures": node("SaveImage", images=["frames", 0], filename_prefix="frame"),
        "sound": node("SaveAudio", audio=["tone", 0], filename_prefix="tone"),
    }
    result = limited.output({"workflow": graph})
    assert [picture.size for picture in pictures(result)] == [(64, 48)] * 4
    assert [sound["mime_type"] for sound in result["audio"]] == ["audio/flac"]
