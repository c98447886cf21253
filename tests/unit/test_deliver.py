"""What fits goes as base64; what does not is shrunk or refused. With storage: tests/e2e/test_delivery.py."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_worker.deadline import Deadline
from comfy_worker.errors import InvalidValue, JobCancelled, ResultTooLarge
from comfy_worker.request.schema import Output
from comfy_worker.response.deliver import ENVELOPE, MB, Delivery, result_limit
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.schema import Media
from tests import bombs

SIDE = 400


def noise(mode: str = "RGB", form: str = "PNG") -> EncodedFile:
    """A picture that compresses badly: about 480 kB."""
    image = Image.frombytes(mode, (SIDE, SIDE), os.urandom(SIDE * SIDE * len(mode)))
    target = io.BytesIO()
    image.save(target, format=form, lossless=True)
    name = f"a_{mode}.{form.lower()}"
    return EncodedFile(name, f"image/{form.lower()}", "images", "9", target.getvalue(), SIDE, SIDE)


def json_of(media: dict[str, list[Media]]) -> bytes:
    return json.dumps(
        {category: [entry.model_dump() for entry in row] for category, row in media.items()}
    ).encode()


def size_of(media: dict[str, list[Media]]) -> int:
    return len(json_of(media))


def deliver(
    files: list[EncodedFile], limit: int, streaming: bool = False, **output: Any
) -> tuple[Any, list[str]]:
    delivery = Delivery("job", Output(**output), None, limit, streaming)
    return delivery.deliver(files, 7, json_of), delivery.warnings


@pytest.mark.parametrize(
    ("job_id", "setting", "limit"),
    [
        ("sync-1", None, 20 * MB),
        ("1-u1", None, 10 * MB),
        ("sync-1", 0.5, MB // 2),
        ("1-u1", 30.0, 30 * MB),
    ],
)
def test_the_limit_is_runpods_unless_it_is_set(
    job_id: str, setting: float | None, limit: int
) -> None:
    assert result_limit(job_id, setting) == limit


def test_what_fits_is_base64(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"12345")
    on_disk = EncodedFile("x.bin", "application/octet-stream", "files", "4", path)
    picture = noise()
    media, warnings = deliver([on_disk, picture], MB)
    assert warnings == []
    assert base64.b64decode(media["images"][0].data) == picture.read()
    (file,) = media["files"]
    assert (file.type, base64.b64decode(file.data), file.bytes, file.seed) == (
        "base64",
        b"12345",
        5,
        7,
    )


def test_files_of_one_name_get_different_names() -> None:
    names = ["a.png", "b.png", "a.png", "a-2.png", "a.png", "a"]
    files = [replace(noise(), filename=name) for name in names]
    delivered, _warnings = deliver(files, 20 * MB)
    media = delivered["images"]
    assert [item.filename for item in media] == [
        "a.png", "b.png", "a-2.png", "a-2-2.png", "a-3.png", "a",
    ]  # fmt: skip


def test_base64_and_the_json_around_it_are_counted() -> None:
    files = [noise()]
    exactly = size_of(deliver(files, MB)[0]) + ENVELOPE
    assert deliver(files, exactly)[1] == []
    with pytest.raises(ResultTooLarge):
        deliver(files, exactly - 1)


def test_too_large_results_name_sizes_and_remedies() -> None:
    with pytest.raises(ResultTooLarge) as caught:
        deliver([noise()], 300_000)
    assert all(
        way in caught.value.sentence for way in ("0.3 MB", "BUCKET_ENDPOINT_URL", "output.shrink")
    )
    assert caught.value.details[0]["limit_mb"] == 0.3
    assert caught.value.details[1]["filename"] == "a_RGB.png"


@pytest.mark.parametrize(
    ("mode", "form", "becomes"),
    [("RGB", "PNG", "jpeg"), ("RGBA", "PNG", "webp"), ("RGB", "WEBP", "webp")],
)
def test_where_it_is_allowed_pictures_are_shrunk(mode: str, form: str, becomes: str) -> None:
    media, (warning,) = deliver([noise(mode, form)], 250_000, shrink=True)
    (image,) = media["images"]
    assert image.mime_type == f"image/{becomes}"
    assert image.filename == f"a_{mode}.{'jpg' if becomes == 'jpeg' else becomes}"
    with Image.open(io.BytesIO(base64.b64decode(image.data))) as picture:
        assert (picture.format, picture.size) == (becomes.upper(), (image.width, image.height))
        assert picture.mode == mode
    assert size_of(media) + ENVELOPE <= 250_000
    assert "RunPod accepts at most 0.25 MB" in warning
    assert "quality" in warning


def test_the_highest_quality_that_fits_is_used() -> None:
    assert "quality 90" in deliver([noise()], 400_000, shrink=True)[1][0]
    assert "of their width and height" in deliver([noise()], 40_000, shrink=True)[1][0]


def test_what_cannot_be_shrunk_enough_is_an_error() -> None:
    video = EncodedFile("a.mp4", "video/mp4", "videos", "9", os.urandom(400_000))
    frames = [Image.frombytes("RGB", (SIDE, SIDE), os.urandom(SIDE * SIDE * 3)) for _ in range(2)]
    target = io.BytesIO()
    frames[0].save(target, format="WEBP", save_all=True, append_images=frames[1:])
    animation = EncodedFile("a.webp", "image/webp", "images", "9", target.getvalue(), SIDE, SIDE)
    drawing = EncodedFile("a.svg", "image/svg+xml", "images", "9", b"<svg" + b" " * 400_000)
    for file in (video, animation, drawing):
        with pytest.raises(ResultTooLarge):
            deliver([file, noise()], 100_000, shrink=True)


def test_json_is_counted_as_it_is_posted() -> None:
    files = [
        EncodedFile(f"{number}.png", "image/png", "images", "9", b"1234", 4, 4)
        for number in range(4000)
    ]
    exactly = size_of(deliver(files, 10 * MB)[0]) + ENVELOPE
    assert deliver(files, exactly)[1] == []
    with pytest.raises(ResultTooLarge) as caught:
        deliver(files, exactly - 1)
    assert len(caught.value.details) < 30


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_every_copy_of_a_file_is_counted(copies: int) -> None:
    """A shape may leave pictures out, or have them twice."""
    file = EncodedFile("a.png", "image/png", "images", "9", bytes(30_000), 4, 4)

    def shaped(media: dict[str, list[Media]]) -> bytes:
        return json.dumps([media["images"][0].data] * copies).encode()

    exactly = 40_000 * copies + {0: 2, 1: 4, 2: 8}[copies] + ENVELOPE
    Delivery("job", Output(), None, exactly, streaming=False).deliver([file], 7, shaped)
    with pytest.raises(ResultTooLarge):
        Delivery("job", Output(), None, exactly - 1, streaming=False).deliver([file], 7, shaped)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with path.open("wb") as opened:
        opened.truncate(1 << 40)
    file = EncodedFile("a.mp4", "video/mp4", "videos", "9", path)
    for output in ({}, {"shrink": True}):
        with pytest.raises(ResultTooLarge, match="the result is 1,466,016 MB"):
            deliver([file], MB, **output)


def test_texts_too_large_are_no_matter_for_storage() -> None:
    delivery = Delivery("job", Output(), None, MB, streaming=False)
    with pytest.raises(ResultTooLarge, match="show less text") as caught:
        delivery.deliver([], 7, lambda _media: b"x" * MB)
    assert "storage" not in caught.value.sentence
    assert "BUCKET" not in caught.value.sentence


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_what_shrinking_would_spoil_stays(mode: str) -> None:
    picture = Image.new(mode, (8, 8))
    target = io.BytesIO()
    picture.save(target, format="TIFF")
    deep = EncodedFile("a.tiff", "image/tiff", "images", "9", target.getvalue(), 8, 8)
    media, _ = deliver([deep, noise()], 250_000, shrink=True)
    assert base64.b64decode(media["images"][0].data) == target.getvalue()


def test_shrinking_ends_with_its_job(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bombs.plain_png(8000))
    file = EncodedFile("a.png", "image/png", "images", "9", path, 8000, 8000)
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    stop = Deadline(cancelled)
    delivery = Delivery(
        "job", Output(shrink=True), None, ENVELOPE + 20_000, streaming=False, stop=stop
    )
    with pytest.raises(JobCancelled):
        delivery.deliver([file] * 50, 7, json_of)


def test_results_too_large_for_streams_remain_in_status() -> None:
    media, (warning,) = deliver([noise(), noise()], 10 * MB, streaming=True)
    assert len(media["images"]) == 2
    assert "only the job's status" in warning
    with pytest.raises(ResultTooLarge):
        deliver([noise(), noise()], MB, streaming=True)


def test_what_was_streamed_already_counts() -> None:
    delivery = Delivery("job", Output(), None, MB, streaming=True)
    delivery.streamed = 500_000
    with pytest.raises(ResultTooLarge):
        delivery.deliver([noise()], 7, json_of)


def test_only_small_files_are_streamed_early() -> None:
    small = EncodedFile("a.png", "image/png", "images", "9", b"123")
    delivery = Delivery("job", Output(), None, 10 * MB, streaming=True)
    early = delivery.deliver_partial([small], 7)
    assert early is not None
    assert base64.b64decode(early["images"][0].data) == b"123"
    assert delivery.deliver_partial([noise(), noise()], 7) is None
    delivery.streamed = 2_499_000
    assert delivery.deliver_partial([small], 7) is None


def test_s3_without_storage_is_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidValue, match=r"output\.delivery cannot be s3"):
        Delivery("job", Output(delivery="s3"), None, MB, streaming=False)
