"""A picture that ComfyUI saved is a workflow, in each of the places where ComfyUI writes it."""

from __future__ import annotations

import base64
import io
import json
import math

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_worker.errors import InvalidInput, InvalidMedia, InvalidWorkflow
from comfy_worker.inputs.embedded_workflow import read_saved_graph
from comfy_worker.request.schema import JobInput

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
        info.add(b"comf", key.encode() + b"\0" + json.dumps(value).encode("latin-1"), after_idat=True)
    return encoded("PNG", pnginfo=info, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])


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
        (png(prompt={"1": {"class_type": "A", "inputs": {"a": math.nan}}}, workflow=EDITOR), EDITOR),
        (png(prompt={"1": {"class_type": "\ud800", "inputs": {}}}, workflow=EDITOR), EDITOR),
        (png(prompt=with_notes()), API),
        (animated_png(), API),
        (webp(), API),
    ],
)
def test_the_graph_is_read_the_one_that_ran_first(text: str, graph: object) -> None:
    assert read_saved_graph(text) == graph
    assert JobInput.read({"workflow": "data:image/png;base64," + text}).workflow == graph


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("data:image/png;base64,!", InvalidMedia),
        (base64.b64encode(b"no picture" * 30).decode(), InvalidWorkflow),
        (encoded("JPEG"), InvalidWorkflow),
        (png(), InvalidWorkflow),
        (png(prompt="[1]"), InvalidWorkflow),
        (png(prompt={"\udc00": {"class_type": "A", "inputs": {}}}), InvalidWorkflow),
        (png(prompt='{"1": {"class_type": "A", "inputs": {"a": ' + "9" * 5000 + "}}}"), InvalidWorkflow),
        (png(prompt="[" * 5000), InvalidWorkflow),
        (png(prompt=API)[:60], InvalidWorkflow),
    ],
)
def test_a_picture_without_one_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        JobInput.read({"workflow": "data:image/png;base64," + text.removeprefix("data:image/png;base64,")})


def test_a_short_text_is_a_name() -> None:
    assert JobInput.read({"workflow": "iVBORw0KGgo"}).workflow == "iVBORw0KGgo"
    with pytest.raises(InvalidInput):
        JobInput.read({"workflow": "{cut"})
