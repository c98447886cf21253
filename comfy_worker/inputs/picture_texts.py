"""Reads the texts in a picture's metadata, and never a pixel.

ComfyUI keeps its graph there. Where the texts stand follows from the structure of the file, so neither the size
of a picture nor the number of its frames matters; texts that are compressed are unpacked up to a limit.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import Literal

from PIL import Image

from comfy_worker.errors import InvalidWorkflow

__all__ = ["picture_texts"]

# A graph of 5,000 nodes has some 3 MB.
MAX_TEXT_BYTES = 32_000_000
# A picture has some tens of chunks or segments, a long animation some thousands.
MAX_PARTS = 500_000
PNG = b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\0\0"
# Parts of a JPEG up to its first scan; behind it there is no metadata.
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")
APP1, SOS = 0xE1, 0xDA
TIFF = (b"II*\0", b"MM\0*")
# Of a tag: its bytes in all, and the number of the type that is text.
TAG_BYTES, ASCII = 12, 2


def picture_texts(data: bytes) -> list[tuple[str, str]]:
    """The texts in a picture, by keyword, in the order of the file.

    Args:
        data: a PNG, WebP, JPEG, TIFF or AVIF.

    Raises:
        InvalidWorkflow: it is no picture that can be read, is cut short, or holds too much text.
    """
    try:
        if data.startswith(PNG):
            return list(_png_texts(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return list(_exif_texts(_riff_chunk(data, b"EXIF")))
        if data.startswith(b"\xff\xd8"):
            return list(_exif_texts(_jpeg_exif(data)))
        if data[:4] in TIFF:
            return list(_exif_texts(data))
        with Image.open(io.BytesIO(data), formats=["AVIF"]) as opened:  # its header
            return list(_exif_texts(opened.info.get("exif", b"")))
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, zlib.error):
        raise InvalidWorkflow(
            "workflow is no picture that can be read; send the PNG or WebP as ComfyUI saved it"
        ) from None
    except Image.DecompressionBombError:
        raise InvalidWorkflow("workflow is a picture of too many pixels; send the PNG or WebP") from None


def _png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """Text chunks, EXIF, and ComfyUI's own chunks in an animation: `prompt`, a zero byte, the text."""
    left = MAX_TEXT_BYTES
    for kind, start, end in _png_chunks(data):
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"comf", b"eXIf"):
            continue
        body = data[start:end]
        if kind == b"eXIf":
            yield from _exif_texts(body)
            continue
        keyword, _, rest = body.partition(b"\0")
        if kind == b"zTXt":
            rest = _unpacked(rest[1:], left)
        elif kind == b"iTXt":
            packed, (_language, _translated, rest) = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
            rest = _unpacked(rest, left) if packed else rest
        left -= len(rest)
        if left < 0:
            raise _too_much_text()
        encoding = "utf-8" if kind == b"iTXt" else "latin-1"
        yield keyword.decode("latin-1"), rest.decode(encoding, "replace")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk: what it is, and where its body begins and ends."""
    position = len(PNG)
    for _ in range(MAX_PARTS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise ValueError("it is cut short")
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4
    raise ValueError("it has too many chunks")


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    """The body of a chunk of a WebP file; empty where there is none."""
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return b""
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + length > len(data):
            raise ValueError("it is cut short")
        if data[position : position + 4] == wanted:
            return data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    raise ValueError("it has too many chunks")


def _jpeg_exif(data: bytes) -> bytes:
    """The EXIF segment of a JPEG; empty where there is none."""
    position = 2
    for _ in range(MAX_PARTS):
        found = JPEG_MARKER.match(data, position)
        if found is None:
            raise ValueError("it is cut short")
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        body = data[found.end() + 2 : found.end() + length]
        if found[1][0] == APP1 and body.startswith(EXIF):
            return body
        if found[1][0] == SOS:
            return b""
        position = found.end() + length
    raise ValueError("it has too many segments")


def _unpacked(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, limit + 1)
    if len(text) > limit:
        raise _too_much_text()
    return text


def _exif_texts(body: bytes, start: int = 0) -> Iterator[tuple[str, str]]:
    """Texts as ComfyUI keeps them in a WebP file, `prompt:{...}`: those of the first folder of tags.

    Args:
        body: empty, or EXIF, which is laid out as a TIFF file is.
        start: where it begins.
    """
    if body.startswith(EXIF, start):
        start += len(EXIF)
    order: Literal["big", "little"] = "big" if body.startswith(b"MM", start) else "little"

    def number(position: int, size: int) -> int:
        return int.from_bytes(body[start + position : start + position + size], order)

    folder, left = number(4, 4), MAX_TEXT_BYTES
    for entry in range(folder + 2, folder + 2 + TAG_BYTES * number(folder, 2), TAG_BYTES):
        length = number(entry + 4, 4)
        if number(entry + 2, 2) != ASCII or length <= 4:  # so short a text is no graph
            continue
        first = start + number(entry + 8, 4)
        text = body[first : first + length].rstrip(b"\0")
        left -= len(text)
        if left < 0:
            raise _too_much_text()
        keyword, colon, value = text.partition(b":")
        if colon:
            yield keyword.decode("latin-1"), value.decode("utf-8", "replace")


def _too_much_text() -> InvalidWorkflow:
    return InvalidWorkflow(
        f"workflow is a picture with more than {MAX_TEXT_BYTES // 1_000_000} MB of text; send the graph as JSON"
    )
