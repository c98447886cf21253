"""A picture that ComfyUI saved is a workflow, in each of the places where ComfyUI writes it."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_worker.errors import InvalidInput, InvalidMedia, InvalidWorkflow
from comfy_worker.inputs.embedded_workflow import workflow_of_source
from comfy_worker.request.embedded_workflow import with_embedded_workflow
from comfy_worker.request.schema import JobInput
from tests import bombs

API, EDITOR = {"1": {"class_type": "A", "inputs": {}}}, {"nodes": [], "links": []}
PICTURE = Image.new("RGB", (8, 8))


def encoded(image_format: str, **options: object) -> str:
    buffer = io.BytesIO()
    PICTURE.save(buffer, image_format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def png(**texts: object) -> str:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    return encoded("PNG", pnginfo=info)


def animated_png() -> str:
    """As SaveAnimatedPNG writes it: in chunks of its own, after the pixels."""
    info = PngInfo()
    for key, value in (("prompt", API), ("workflow", EDITOR)):
        info.add(
            b"comf", key.encode() + b"\0" + json.dumps(value).encode("latin-1"), after_idat=True
        )
    return encoded(
        "PNG", pnginfo=info, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
    )


def webp() -> str:
    """As SaveAnimatedWEBP writes it: in EXIF, the name before a colon."""
    exif = PICTURE.getexif()
    exif[0x0110], exif[0x010F] = f"prompt:{json.dumps(API)}", f"workflow:{json.dumps(EDITOR)}"
    return encoded("WEBP", exif=exif)


def with_notes() -> dict[str, object]:
    """A graph with what ComfyUI notes in it as it runs."""
    return {"1": {**API["1"], "is_changed": [math.nan], "_cached": {"a": math.inf}}}


@pytest.mark.parametrize(
    ("text", "graph"),
    [
        (png(prompt=API, workflow=EDITOR), API),
        (png(workflow=EDITOR), EDITOR),
        (png(prompt="{cut", workflow=EDITOR), EDITOR),
        (png(prompt=[1], workflow=EDITOR), EDITOR),
        (png(prompt={}, workflow=EDITOR), EDITOR),
        (
            png(prompt={"1": {"class_type": "A", "inputs": {"a": math.nan}}}, workflow=EDITOR),
            EDITOR,
        ),
        (png(prompt={"1": {"class_type": "\ud800", "inputs": {}}}, workflow=EDITOR), EDITOR),
        (png(prompt=with_notes()), API),
        (animated_png(), API),
        (webp(), API),
    ],
)
def test_the_workflow_that_ran_is_preferred(text: str, graph: object) -> None:
    assert workflow_of_source(text) == graph
    request = JobInput.read({"workflow": "data:image/png;base64," + text})
    assert with_embedded_workflow(request).workflow == graph


MANY_TAGS = b"".join(struct.pack("<HHII", 0x0110, 2, 1_000_000, 8) for _ in range(65_000))
GRAPH = b"prompt\0" + json.dumps(API).encode()


BARE = ((b"IHDR", b"\xff" * 13), (b"tEXt", GRAPH), (b"IEND", b""))


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def packed(chunk_type: bytes, keyword: bytes, text: bytes) -> bytes:
    """A compressed text chunk."""
    head = keyword + (b"\0\0" if chunk_type == b"zTXt" else b"\0\1\0\0\0")
    return bombs.png_chunk(chunk_type, head + zlib.compress(text, 9))


@pytest.mark.parametrize(
    "data",
    [
        bombs.animated_png(13_000, 1_000, bombs.png_chunk(b"comf", GRAPH)),
        bombs.plain_png(13_000, bombs.png_chunk(b"tEXt", GRAPH)),
        # Neither the pixels nor the frames are there, which nobody asks for.
        b"".join([bombs.PNG, *(bombs.png_chunk(*chunk) for chunk in BARE)]),
        bombs.plain_png(8, packed(b"zTXt", b"prompt", json.dumps(API).encode())),
        bombs.plain_png(8, packed(b"iTXt", b"prompt", json.dumps(API).encode())),
    ],
    ids=["animation", "large", "no-pixels", "zTXt", "iTXt"],
)
def test_no_pixel_is_decoded_for_a_graph(data: bytes) -> None:
    assert workflow_of_source(text_of(data)) == API


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_graphs_in_exif_are_found(image_format: str) -> None:
    exif = PICTURE.getexif()
    exif[0x0110] = f"prompt:{json.dumps(API)}"
    assert workflow_of_source(encoded(image_format, exif=exif)) == API


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (bombs.plain_png(8, packed(b"zTXt", b"x", bytes(40_000_000))), "more than 32 MB of text"),
        (bombs.plain_png(8, packed(b"iTXt", b"x", bytes(40_000_000))), "more than 32 MB of text"),
        (
            bombs.plain_png(8, *[packed(b"zTXt", b"x", bytes(9_000_000))] * 4),
            "more than 32 MB of text",
        ),
        (bombs.plain_png(8, packed(b"iTXt", b"x", b"")[:-9]), "nor a readable picture"),
        (bombs.plain_png(8, bombs.png_chunk(b"iTXt", b"prompt\0\1\0")), "nor a readable picture"),
        (
            bombs.plain_png(8, bombs.png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
            "without a usable workflow",
        ),
        (bombs.PNG + bombs.png_chunk(b"gAMA", b"") * 600_000, "nor a readable picture"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8X\xff\xff\xff\xff" + bytes(200), "nor a readable picture"),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 600_000, "nor a readable picture"),
        (bombs.avif_without_clock(), "without a usable workflow|nor a readable picture"),
        (b"II*\0" + bytes([8, 0, 0, 0]) + b"\xff" * 300, "without a usable workflow"),
        (
            b"II*\0" + struct.pack("<IH", 8, 65_000) + MANY_TAGS + bytes(1_000_000),
            "more than 32 MB of text",
        ),
    ],
    ids=[
        *(
            "zTXt-bomb",
            "iTXt-bomb",
            "texts-together",
            "chunk-cut",
            "iTXt-short",
            "exif",
            "many-chunks",
        ),
        *("riff-length", "many-segments", "avif-clock", "tiff", "many-tags"),
    ],
)
def test_metadata_that_means_harm_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidWorkflow, match=sentence):
        workflow_of_source(text_of(data))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("data:image/png;base64,!", InvalidMedia),
        (base64.b64encode(b"no picture" * 30).decode(), InvalidWorkflow),
        (encoded("JPEG"), InvalidWorkflow),
        (png(), InvalidWorkflow),
        (png(prompt="[1]"), InvalidWorkflow),
        (png(prompt={"\udc00": {"class_type": "A", "inputs": {}}}), InvalidWorkflow),
        (
            png(prompt='{"1": {"class_type": "A", "inputs": {"a": ' + "9" * 5000 + "}}}"),
            InvalidWorkflow,
        ),
        (png(prompt="[" * 5000), InvalidWorkflow),
        (png(prompt=API)[:60], InvalidWorkflow),
    ],
)
def test_a_picture_without_one_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        with_embedded_workflow(
            JobInput.read(
                {"workflow": "data:image/png;base64," + text.removeprefix("data:image/png;base64,")}
            )
        )


@pytest.mark.parametrize("text", ["[" * 200_000, "https://example.com/" + "a" * 300])
def test_text_that_is_no_json_is_named(text: str) -> None:
    with pytest.raises(InvalidWorkflow, match="workflow is neither readable JSON"):
        with_embedded_workflow(JobInput.read({"workflow": text}))


def test_a_short_text_is_a_name() -> None:
    request = JobInput.read({"workflow": "iVBORw0KGgo"})
    assert with_embedded_workflow(request).workflow == "iVBORw0KGgo"
    with pytest.raises(InvalidInput):
        JobInput.read({"workflow": "{cut"})
