"""Raw pictures in the format asked for, other files as they were saved."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from comfy_worker.deadline import Deadline
from comfy_worker.errors import InputError, JobCancelled, OutOfMemory
from comfy_worker.imaging.processes import ImageTask, TaskFault
from comfy_worker.request.schema import JobInput, Output
from comfy_worker.response.collect import OutputFile
from comfy_worker.response.encode import EncodedFile, encode, warnings_of

Pixels = npt.NDArray[np.uint8]
TEXT = {
    "prompt": json.dumps({"1": {"class_type": "SaveImage", "inputs": {}}}),
    "workflow": "{}",
    "more": "[1]",
}


def photo(height: int = 40, width: int = 60, channels: int = 3) -> Pixels:
    y, x, c = np.mgrid[:height, :width, :channels]
    return np.asarray(128 + 80 * np.sin(y / 9 + c) * np.cos(x / 13), np.uint8)


def raw(folder: Path, pixels: Pixels, name: str = "ComfyUI_00001_.png") -> OutputFile:
    pixels.tofile(folder / name)
    height, width, channels = pixels.shape
    return OutputFile("9", folder / name, "output", (height, width, channels))


def encode_one(
    folder: Path, pixels: Pixels, text: dict[str, str] | None = None, **output: Any
) -> EncodedFile:
    (encoded,) = encode([raw(folder, pixels)], Output(**output), TEXT if text is None else text)
    return encoded


def opened(encoded: EncodedFile) -> Image.Image:
    image = Image.open(io.BytesIO(encoded.read()))
    image.load()
    return image


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("output", [{}, {"format": "png"}, {"format": "webp", "lossless": True}])
def test_what_is_lossless_keeps_every_pixel(
    tmp_path: Path, output: dict[str, Any], channels: int
) -> None:
    pixels = photo(channels=channels)
    image = opened(encode_one(tmp_path, pixels, **output))
    assert np.array_equal(
        np.asarray(image.convert(("L", "LA", "RGB", "RGBA")[channels - 1])), pixels.squeeze()
    )


@pytest.mark.parametrize(
    ("image_format", "filename"),
    [
        ("png", "ComfyUI_00001_.png"),
        ("jpeg", "ComfyUI_00001_.jpg"),
        ("webp", "ComfyUI_00001_.webp"),
    ],
)
def test_name_type_and_size_fit_the_format(
    tmp_path: Path, image_format: str, filename: str
) -> None:
    encoded = encode_one(tmp_path, photo(), format=image_format)
    assert (encoded.filename, encoded.mime_type, encoded.category) == (
        filename,
        f"image/{image_format}",
        "images",
    )
    assert (encoded.node_id, encoded.width, encoded.height, encoded.warnings) == ("9", 60, 40, ())
    assert (opened(encoded).format, opened(encoded).size) == (image_format.upper(), (60, 40))


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_quality_decides_how_near_and_how_large(tmp_path: Path, image_format: str) -> None:
    pixels = photo(256, 256)
    low, high = (
        encode_one(tmp_path, pixels, {}, format=image_format, quality=quality)
        for quality in (10, 95)
    )
    errors = [np.abs(np.asarray(opened(encoded), int) - pixels).mean() for encoded in (low, high)]
    assert errors[0] > errors[1]
    assert errors[1] < 3
    assert len(low.read()) < len(high.read())


def test_metadata_is_where_comfyui_keeps_it(tmp_path: Path) -> None:
    assert opened(encode_one(tmp_path, photo())).text == TEXT  # type: ignore[attr-defined]
    for image_format in ("webp", "jpeg"):
        exif = opened(encode_one(tmp_path, photo(), format=image_format)).getexif()
        expected = {0x0110: f"prompt:{TEXT['prompt']}", 0x010F: "workflow:{}", 0x010E: "more:[1]"}
        assert dict(exif) == expected


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg"])
def test_metadata_is_left_out_if_asked(tmp_path: Path, image_format: str) -> None:
    assert b"SaveImage" in encode_one(tmp_path, photo(), format=image_format).read()
    assert (
        b"SaveImage"
        not in encode_one(tmp_path, photo(), format=image_format, metadata=False).read()
    )


def test_transparency_becomes_white_in_jpeg_with_one_warning(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 4), np.uint8)
    pixels[:, :16, 3] = 255
    files = [raw(tmp_path, pixels), raw(tmp_path, pixels)]
    encoded = encode(files, Output(format="jpeg"), {})
    image = opened(encoded[0])
    assert max(image.getpixel((4, 8))) < 10  # type: ignore[arg-type]
    assert min(image.getpixel((28, 8))) > 245  # type: ignore[arg-type]
    assert warnings_of(encoded) == [
        "ComfyUI_00001_.png had transparent parts, which jpeg cannot store; they are white"
    ]


def test_opaque_alpha_channels_give_no_jpeg_warning(tmp_path: Path) -> None:
    assert encode_one(tmp_path, np.full((4, 4, 4), 255, np.uint8), format="jpeg").warnings == ()


def test_workflows_too_long_for_jpeg_give_a_warning(tmp_path: Path) -> None:
    encoded = encode_one(tmp_path, photo(), {"prompt": "x" * 70_000}, format="jpeg")
    assert encoded.warnings == (
        "ComfyUI_00001_.png does not contain its workflow, which is too long for jpeg",
    )
    assert dict(opened(encoded).getexif()) == {}
    longest = "x" * 65_400
    assert (
        opened(encode_one(tmp_path, photo(), {"prompt": longest}, format="jpeg"))
        .getexif()[0x0110]
        .endswith(longest)
    )


@pytest.mark.parametrize(("image_format", "width"), [("webp", 16_384), ("jpeg", 65_501)])
def test_pictures_too_large_for_a_format_become_png(
    tmp_path: Path, image_format: str, width: int
) -> None:
    encoded = encode_one(tmp_path, np.zeros((1, width, 3), np.uint8), format=image_format)
    assert (encoded.mime_type, encoded.filename) == ("image/png", "ComfyUI_00001_.png")
    assert encoded.warnings == (
        f"ComfyUI_00001_.png is too large for {image_format} and was encoded as png",
    )
    assert (
        encode_one(tmp_path, np.zeros((1, width - 1, 3), np.uint8), format=image_format).mime_type
        == f"image/{image_format}"
    )


def test_files_of_other_nodes_stay_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "own.png"
    Image.new("RGB", (3, 2)).save(path)
    file = OutputFile("7", path, "output")
    (plain,) = encode([file], Output(), TEXT)
    assert (plain.content, plain.mime_type, plain.width, plain.height, plain.warnings) == (
        path,
        "image/png",
        3,
        2,
        (),
    )
    (changed,) = encode([file], Output(format="webp", metadata=False), TEXT)
    assert changed.content == path
    assert changed.warnings == (
        "own.png is image/png, as node 7 saved it",
        "own.png may contain its workflow: node 7 saved it",
    )
    assert encode([file], Output(format="png"), TEXT)[0].warnings == ()


def test_images_that_pillow_cannot_read_are_delivered(tmp_path: Path) -> None:
    path = tmp_path / "drawing.svg"
    path.write_text('<?xml version="1.0"?>\n<svg/>')
    (encoded,) = encode([OutputFile("7", path, "output")], Output(), {})
    assert (encoded.category, encoded.mime_type, encoded.width) == ("images", "image/svg+xml", None)


@pytest.mark.parametrize(
    "output", [{"format": "webp", "lossless": True}, {"format": "webp"}, {"format": "jpeg"}]
)
def test_encoding_ends_with_its_job(tmp_path: Path, output: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6000, 6000, 3), np.uint8)
    file = raw(tmp_path, noise)
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(JobCancelled):
        encode([file] * 20, Output(**output), {}, Deadline(cancelled))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_an_encoder_that_dies_lacked_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise TaskFault("its process ended", "died")

    monkeypatch.setattr(ImageTask, "run", dies)
    with pytest.raises(OutOfMemory):
        encode_one(tmp_path, photo())


def test_raw_pixels_of_another_length_are_a_file(tmp_path: Path) -> None:
    file = raw(tmp_path, photo())
    (tmp_path / "ComfyUI_00001_.png").write_bytes(b"cut")
    (encoded,) = encode([file], Output(), TEXT)
    assert (encoded.category, encoded.read()) == ("files", b"cut")


def test_many_files_stay_in_order(tmp_path: Path) -> None:
    files = [raw(tmp_path, photo(width=width), f"a_{width}_.png") for width in range(1, 30)]
    assert [encoded.width for encoded in encode(files, Output(), {})] == list(range(1, 30))


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({"format": "gif"}, "output.format"),
        ({"quality": 0}, "output.quality"),
        ({"quality": 101}, "output.quality"),
        ({"metadata": "perhaps"}, "output.metadata"),
        ({"formt": "png"}, "output.formt is not a key of the input; did you mean format?"),
    ],
)
def test_a_mistake_in_output_is_told(output: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        JobInput.read({"output": output})
