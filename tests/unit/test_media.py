"""Pictures that clients send: verified by content, told apart from what only claims to be one."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from comfy_worker import media
from comfy_worker.errors import InvalidMedia


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> str:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return base64.b64encode(file.getvalue()).decode()


RED = Image.new("RGB", (4, 2), (255, 0, 0))


def test_base64_and_data_uri_are_alike() -> None:
    plain = encoded(RED)
    for value in (
        plain,
        f"data:image/png;base64,{plain}",
        "\n".join(plain[i : i + 20] for i in range(0, 999, 20)),
    ):
        assert media.read_image("image", value).tobytes() == RED.tobytes()


def test_a_wrong_type_in_a_data_uri_does_not_matter() -> None:
    value = "data:image/png;base64," + encoded(RED, "JPEG")
    assert media.read_image("image", value).size == (4, 2)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert media.read_image("image", encoded(RED, "JPEG", exif=exif)).size == (2, 4)


def huge_png() -> str:
    """A PNG of 60000x60000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("not base64!", "image must be base64 or a data URI of a picture"),
        ("data:image/png;base64,%%%", "image must be base64 or a data URI of a picture"),
        (base64.b64encode(b"just text").decode(), "image is no picture that can be read"),
        (
            encoded(Image.effect_noise((64, 64), 50))[:2000],
            "image is no picture that can be read, or is cut short",
        ),
        (huge_png(), "image has too many pixels; send at most 64,000,000"),
        ("https://example.com/a.png", "image is a URL, which this worker does not fetch"),
        ("file:///etc/passwd", "image is a URL, which this worker does not fetch"),
    ],
    ids=["no-base64", "bad-data-uri", "text", "cut-short", "bomb", "url", "file-url"],
)
def test_what_is_no_picture_is_refused(value: str, sentence: str) -> None:
    with pytest.raises(InvalidMedia, match="image") as caught:
        media.read_image("image", value)
    assert sentence in str(caught.value)


def test_a_mask_is_the_alpha_channel_or_the_grey() -> None:
    grey = Image.new("L", (2, 2), 200)
    assert media.read_mask("mask", encoded(grey)).tobytes() == bytes([200] * 4)
    clear = Image.new("RGBA", (2, 2), (9, 9, 9, 70))
    assert media.read_mask("mask", encoded(clear)).tobytes() == bytes([70] * 4)


def test_a_mask_file_reads_alike_from_any_channel() -> None:
    file = media.mask_file(Image.new("L", (1, 1), 200))
    assert file.getpixel((0, 0)) == (200, 200, 200, 55)


def test_a_picture_carries_a_mask_of_another_size() -> None:
    masked = media.with_mask(RED, Image.new("L", (8, 4), 255))
    assert masked.size == RED.size
    assert masked.getpixel((0, 0)) == (255, 0, 0, 0)


def test_a_picture_is_stored_under_a_name_of_ours(tmp_path: Path) -> None:
    name = media.store(RED, tmp_path / "job", "controlnets.0.image")
    assert name == "job/controlnets_0_image.png"
    assert Image.open(tmp_path / name).tobytes() == RED.tobytes()


def test_cmyk_becomes_rgb() -> None:
    assert media.read_image("image", encoded(RED.convert("CMYK"), "JPEG")).mode == "RGB"
