"""Pictures that tests send."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw

__all__ = ["bomb", "encoded", "file", "mask", "photo"]


def photo(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An ellipse on a plain ground."""
    image = Image.new("RGB", size, "navy")
    ImageDraw.Draw(image).ellipse(
        (size[0] // 5, size[1] // 3, size[0] * 4 // 5, size[1] * 2 // 3), fill="gold"
    )
    return image


def mask(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A mask whose right half is to be made anew."""
    image = Image.new("L", size, 0)
    image.paste(255, (size[0] // 2, 0, *size))
    return image


def file(image: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    written = io.BytesIO()
    image.save(written, format=format_name, **options)
    return written.getvalue()


def encoded(image: Image.Image) -> str:
    """A picture as base64 of a PNG file."""
    return base64.b64encode(file(image)).decode()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of that many pixels each way in a few bytes."""

    def chunk(chunk_type: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data))
            + chunk_type
            + data
            + struct.pack(">I", zlib.crc32(chunk_type + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
