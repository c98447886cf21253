"""Reads the texts in a picture's metadata, where ComfyUI stores its workflow.

The structure of the file tells where the texts are, so no pixel is decoded, and neither the
picture's size nor the number of its frames matters. Compressed texts are decompressed up to a
limit.
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

# A workflow of 5,000 nodes has about 3 MB.
MAX_TEXT_BYTES = 32_000_000
# A picture has tens of chunks or segments, a long animation has thousands.
MAX_PARTS = 500_000
PNG = b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\0\0"
# The marker of a JPEG's segment. Only segments before the first scan are read: no metadata follows
# it.
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")
APP1, SOS = 0xE1, 0xDA
TIFF = (b"II*\0", b"MM\0*")
# The size of a tag in bytes, and the number of the type that holds text.
TAG_BYTES, ASCII = 12, 2


def picture_texts(data: bytes) -> list[tuple[str, str]]:
    """Return the keyword and text of each text in a picture, in the order of the file.

    Args:
        data: a PNG, WebP, JPEG, TIFF or AVIF.

    Raises:
        InvalidWorkflow: the data is not a picture, is cut short, or holds too much text.
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
        with Image.open(io.BytesIO(data), formats=["AVIF"]) as opened:  # reads only the header
            return list(_exif_texts(opened.info.get("exif", b"")))
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, zlib.error):
        raise InvalidWorkflow(
            "workflow is neither a workflow nor a readable picture; send JSON, or the PNG or WebP "
            "as ComfyUI saved it"
        ) from None
    except Image.DecompressionBombError:
        problem = "workflow is a picture with too many pixels; send it as PNG or WebP"
        raise InvalidWorkflow(problem) from None


def _png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """Read the texts in text chunks, EXIF, and ``comf``, ComfyUI's own chunk of animations."""
    remaining = MAX_TEXT_BYTES
    for chunk_type, start, end in _png_chunks(data):
        if chunk_type not in (b"tEXt", b"zTXt", b"iTXt", b"comf", b"eXIf"):
            continue
        body = data[start:end]
        if chunk_type == b"eXIf":
            yield from _exif_texts(body)
            continue
        keyword, _, rest = body.partition(b"\0")
        text = _png_text(chunk_type, rest, remaining)
        remaining -= len(text)
        if remaining < 0:
            raise _too_much_text()
        encoding = "utf-8" if chunk_type == b"iTXt" else "latin-1"
        yield keyword.decode("latin-1"), text.decode(encoding, "replace")


def _png_text(chunk_type: bytes, rest: bytes, limit: int) -> bytes:
    """Return the text of a chunk, decompressed.

    Args:
        chunk_type: of the chunk.
        rest: the chunk's body behind its keyword.
        limit: how many bytes a compressed text may have.
    """
    if chunk_type == b"zTXt":
        return _decompress(rest[1:], limit)
    if chunk_type != b"iTXt":
        return rest
    is_compressed = rest[:1] == b"\1"
    _language, _translated_keyword, text = rest[2:].split(b"\0", 2)
    return _decompress(text, limit) if is_compressed else text


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk: its type, and the positions where its body begins and ends."""
    position = len(PNG)
    for _ in range(MAX_PARTS):
        length = int.from_bytes(data[position : position + 4], "big")
        chunk_type = data[position + 4 : position + 8]
        start = position + 8
        end = start + length
        if end + 4 > len(data):
            raise ValueError("it is cut short")
        yield chunk_type, start, end
        if chunk_type == b"IEND":
            return
        position = end + 4
    raise ValueError("it has too many chunks")


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    """Return the body of a chunk of a WebP file; empty if the file has no such chunk."""
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
    """Return the EXIF segment of a JPEG; empty if the file has none."""
    position = 2
    for _ in range(MAX_PARTS):
        match = JPEG_MARKER.match(data, position)
        if match is None:
            raise ValueError("it is cut short")
        marker = match[1][0]
        start = match.end()
        length = int.from_bytes(data[start : start + 2], "big")
        body = data[start + 2 : start + length]
        if marker == APP1 and body.startswith(EXIF):
            return body
        if marker == SOS:
            return b""
        position = start + length
    raise ValueError("it has too many segments")


def _decompress(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(data, limit + 1)
    if len(text) > limit:
        raise _too_much_text()
    return text


def _exif_texts(body: bytes, start: int = 0) -> Iterator[tuple[str, str]]:
    """Read the texts that ComfyUI stores in EXIF, `prompt:{...}`, from the first directory of tags.

    Args:
        body: EXIF, which has the layout of a TIFF file; may be empty.
        start: the position where it begins.
    """
    if body.startswith(EXIF, start):
        start += len(EXIF)
    order: Literal["big", "little"] = "big" if body.startswith(b"MM", start) else "little"

    def number(position: int, size: int) -> int:
        return int.from_bytes(body[start + position : start + position + size], order)

    remaining = MAX_TEXT_BYTES
    directory = number(4, 4)
    first_tag = directory + 2
    tag_count = number(directory, 2)
    for tag in range(first_tag, first_tag + TAG_BYTES * tag_count, TAG_BYTES):
        length = number(tag + 4, 4)
        if number(tag + 2, 2) != ASCII or length <= 4:  # a text of 4 bytes is not a workflow
            continue
        first = start + number(tag + 8, 4)
        text = body[first : first + length].rstrip(b"\0")
        remaining -= len(text)
        if remaining < 0:
            raise _too_much_text()
        keyword, colon, value = text.partition(b":")
        if colon:
            yield keyword.decode("latin-1"), value.decode("utf-8", "replace")


def _too_much_text() -> InvalidWorkflow:
    limit = f"{MAX_TEXT_BYTES // 1_000_000} MB"
    problem = f"workflow is a picture with more than {limit} of text; send the workflow as JSON"
    return InvalidWorkflow(problem)
