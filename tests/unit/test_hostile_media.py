"""Files that would take hours, all memory, or a decoder's life: refused or ended, and nothing goes on."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_common.paths import REPO
from comfy_worker.deadline import Deadline
from comfy_worker.errors import InvalidMedia, JobCancelled, JobTimedOut
from comfy_worker.imaging.processes import ImageProcesses, TaskFault, image_processes
from comfy_worker.inputs import files as media
from comfy_worker.settings import Settings
from tests import bombs, pictures
from tests.raw_host import RawHost, http, raw_host

SIDE = 8000
# As many scans as are taken, each of which costs the decoder a tenth of a second.
SLOW = bombs.jpeg_of_scans(SIDE, 95)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def inputs(folder: Path, stop: Deadline | None = None, **changes: Any) -> media.InputFiles:
    return media.InputFiles(folder / "job", Settings(**changes).input_limits, stop)


def tasks() -> list[int]:
    """The processes that still do a task."""
    server = image_processes()._server
    assert server is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    alive = []
    for pid in children:
        with contextlib.suppress(OSError):  # it has just ended
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            alive += [int(pid)] * (state != "Z")
    return alive


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="image is a JPEG of more than 100 scans"):
        inputs(tmp_path).add_pictures({"image": text(bombs.jpeg_of_scans(SIDE, 12_000))})


def test_scans_of_a_thumbnail_do_not_count(tmp_path: Path) -> None:
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + 1200) + b"Exif\0\0" + b"\xff\xda\0\x02" * 300
    data = pictures.file(pictures.photo(), "JPEG")
    inputs(tmp_path).add_pictures({"image": text(data[:2] + exif + data[2:])})


def test_progressive_jpegs_of_every_day_are_taken(tmp_path: Path) -> None:
    data = pictures.file(pictures.photo((200, 100)), "JPEG", progressive=True)
    inputs(tmp_path).add_pictures({"image": text(data)})


@pytest.mark.parametrize("first", ["AAAA", text(pictures.bomb())])
def test_a_bad_first_picture_is_not_kept_waiting(tmp_path: Path, first: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidMedia, match=r"a (cannot be decoded|has too many pixels)"):
        inputs(tmp_path).add_any({"a": first, "b": text(SLOW)})
    assert time.monotonic() - began < 30
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(("error", "seconds"), [(JobCancelled, 600.0), (JobTimedOut, 0.5)])
def test_decoding_ends_with_its_job(tmp_path: Path, error: type[Exception], seconds: float) -> None:
    cancelled = threading.Event()
    if error is JobCancelled:
        threading.Timer(0.5, cancelled.set).start()
    with pytest.raises(error):
        inputs(tmp_path, Deadline(cancelled, seconds)).add_any({"a": text(SLOW), "b": text(SLOW)})
    wait_until(lambda: not tasks())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("input")]


def test_decoding_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "DECODE_LIMIT_S", 0.5)
    with pytest.raises(InvalidMedia, match=r"image takes longer than 0\.5 s to decode"):
        inputs(tmp_path).add_pictures({"image": text(SLOW)})
    wait_until(lambda: not tasks())


def test_a_decoder_takes_no_more_memory_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "DECODER_MEMORY", 64 << 20)
    monkeypatch.setattr(media, "BYTES_PER_PIXEL", 0)
    with pytest.raises(
        InvalidMedia, match=r"image (takes too much memory|is a damaged or incomplete picture)"
    ):
        inputs(tmp_path).add_pictures({"image": text(bombs.plain_png(SIDE))})


def test_pixels_together_are_counted_before_any_is_decoded(tmp_path: Path) -> None:
    files = inputs(tmp_path)
    picture = text(bombs.plain_png(SIDE))
    with pytest.raises(InvalidMedia, match="too many pixels together; send at most 256,000,000"):
        files.add_any({str(number): picture for number in range(8)})
    assert not (tmp_path / "job").exists()
    assert files.names == {}


@pytest.mark.parametrize(
    "data",
    [
        bombs.avif_without_clock(),
        bombs.tiff(8, 8, [9] * 64, sample_format=1, offset_type=11),
        pictures.file(pictures.photo(), "GIF")[:30],
        pictures.file(pictures.photo(), "WEBP")[:40],
        # The folder of tags begins where it begins.
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<HHHII", 1, 256, 4, 1, 8)
        + struct.pack("<I", 8),
        bombs.plain_png(8, bombs.png_chunk(b"iCCP", b"x\0\0" + b"\xff" * 50)),
        bombs.plain_png(8, bombs.png_chunk(b"zTXt", b"x\0\0" + b"not packed")),
        bombs.plain_png(8, bombs.png_chunk(b"eXIf", b"II*\0" + b"\xff" * 60_000)),
        bombs.plain_png(8, bombs.png_chunk(b"acTL", b"\0")),
        b"P6 99999999999999999999 1 255\n",
        b"Pf 8 8 nan\n" + bytes(256),
        pictures.file(pictures.photo(), "ICO"),
        pictures.file(pictures.photo(), "TIFF", compression="tiff_lzw")[:-200],
    ],
    ids=[
        *(
            "avif-clock",
            "tiff-offset",
            "gif-cut",
            "webp-cut",
            "tiff-loop",
            "icc",
            "text",
            "exif",
            "animation",
        ),
        *("ppm-width", "pfm-scale", "ico", "tiff-cut"),
    ],
)
def test_odd_pictures_are_files_faults(tmp_path: Path, data: bytes) -> None:
    for add in (inputs(tmp_path).add_pictures, inputs(tmp_path).add_any):
        with contextlib.suppress(InvalidMedia):
            add({"image": text(data)})


@pytest.mark.parametrize(
    "data",
    [
        pictures.file(Image.new("L", (1001, 1000)), "WEBP", lossless=True),
        pictures.file(Image.new("L", (1001, 1000)), "AVIF"),
        pictures.file(Image.new("P", (1001, 1000)), "GIF"),
        pictures.file(Image.new("1", (1001, 1000)), "TIFF", compression="group4"),
        b"P4 30000 30000\n",
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, -60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    ],
    ids=["webp", "avif", "gif", "tiff", "pbm", "bmp"],
)
def test_bombs_of_every_format_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidMedia, match="image has too many pixels; send at most 1,000,000"):
        inputs(tmp_path, max_input_pixels=1_000_000).add_pictures({"image": text(data)})


def test_of_many_pages_the_first_counts(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), shade) for shade in (10, 200, 250)]
    data = pictures.file(pages[0], "TIFF", save_all=True, append_images=pages[1:] * 500)
    files = inputs(tmp_path)
    files.add_pictures({"image": text(data)})
    with Image.open(tmp_path / files.names["image"]) as stored:
        assert stored.getpixel((0, 0)) == 10


def test_floating_point_numbers_become_shades(tmp_path: Path) -> None:
    files = inputs(tmp_path)
    files.add_pictures({"image": text(bombs.tiff(4, 1, [0.0, 0.25, 0.5, 1.0]))})
    with Image.open(tmp_path / files.names["image"]) as stored:
        assert list(np.asarray(stored).flat) == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (bombs.tiff(2, 1, [0.5, 200.0]), "image holds floating point numbers outside of 0 to 1"),
        (bombs.tiff(2, 1, [0.5, float("nan")]), "image holds floating point numbers"),
        (bombs.tiff(2, 1, [-0.5, 0.5]), "image holds floating point numbers"),
        (
            bombs.tiff(2, 1, [70_000, 1], sample_format=2),
            "image has more than 16 bits per channel",
        ),
        (bombs.tiff(2, 1, [-1, 1], sample_format=2), "image holds negative numbers; send unsigned"),
    ],
)
def test_numbers_that_are_no_shades_are_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidMedia, match=sentence):
        inputs(tmp_path).add_pictures({"image": text(data)})


# ---- the processes themselves


def test_a_server_that_was_killed_is_started_again(tmp_path: Path) -> None:
    image_processes().start()
    server = image_processes()._server
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    inputs(tmp_path).add_pictures({"image": pictures.encoded(pictures.photo())})


def test_a_task_whose_process_dies_says_so() -> None:
    with image_processes().task(Deadline()) as task:
        assert task.run("prepare", {"text": {}}) == ({}, [])
        wait_until(lambda: len(tasks()) == 1)  # the process of an earlier test may still be ending
        (pid,) = tasks()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TaskFault) as caught:
            task.run("prepare", {"text": {}})
    assert caught.value.reason == "died"


def test_closing_ends_every_task() -> None:
    processes = ImageProcesses()
    with processes.task(Deadline()) as task:
        task.run("prepare", {"text": {}})
        processes.close()
        with pytest.raises(TaskFault):
            task.run("prepare", {"text": {}})


BUSY_WORKER = """
import sys, time
from comfy_worker.deadline import Deadline
from comfy_worker.imaging.processes import image_processes
with image_processes().task(Deadline()) as task:
    task.run("prepare", {"text": {}})
    print(image_processes()._server.pid, flush=True)
    task.run("probe", {"key": "image", "content": "picture", "max_pixels": 10**8}, sys.stdin.buffer.read())
    task.run("store", {"index": 0, "target": sys.argv[1]})
"""


def test_nothing_outlives_a_killed_worker(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", BUSY_WORKER, str(tmp_path / "stored")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPO,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    server = int(worker.stdout.readline())
    worker.stdin.write(SLOW)
    worker.stdin.close()
    task = int(Path(f"/proc/{server}/task/{server}/children").read_text().split()[0])
    worker.kill()
    worker.wait()
    worker.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (server, task)))


def test_tasks_see_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    processes = ImageProcesses()
    processes.start()
    try:
        assert processes._server is not None
        assert b"hf_secret" not in Path(f"/proc/{processes._server.pid}/environ").read_bytes()
    finally:
        processes.close()


def test_the_time_limit_counts_only_fetches(tmp_path: Path) -> None:
    """A model may be fetched between two files, which takes longer than the files may."""
    picture = pictures.file(pictures.photo())
    with raw_host(http(f"200 OK|Content-Length: {len(picture)}", picture)) as host:
        files = inputs(tmp_path, input_timeout_s=4, allow_private_urls=True)
        files.add_pictures({"image": host.url})
        time.sleep(4.1)
        files.add_pictures({"mask": host.url})


def test_the_time_limit_does_not_restart(tmp_path: Path) -> None:
    def silent(host: RawHost, _connection: socket.socket, _path: str) -> None:
        host.over.wait(20)

    files = inputs(tmp_path, input_timeout_s=4, allow_private_urls=True)
    with raw_host(silent) as host:
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(InvalidMedia, match="took too long"):
                files.add_pictures({"image": host.url})
        assert time.monotonic() - began < 11, "three times the limit"
