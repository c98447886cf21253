"""Pictures that mean harm: small files that are long to decode, or large once they are decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

from PIL import Image

__all__ = [
    "PNG",
    "animated_png",
    "avif_without_clock",
    "jpeg_of_scans",
    "plain_png",
    "png_chunk",
    "tiff",
]

PNG = b"\x89PNG\r\n\x1a\n"


def png_chunk(chunk_type: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return (
        struct.pack(">I", len(data))
        + chunk_type
        + data
        + struct.pack(">I", zlib.crc32(chunk_type + data))
    )


def _header(side: int) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))


def _pixels(side: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(side + 1)) for _ in range(side)), packer.flush()])


def plain_png(side: int, *chunks: bytes) -> bytes:
    """A black square, with further chunks before its pixels."""
    return b"".join(
        [PNG, _header(side), *chunks, png_chunk(b"IDAT", _pixels(side)), png_chunk(b"IEND", b"")]
    )


def animated_png(side: int, frames: int, *chunks: bytes) -> bytes:
    """A black square, then frames of one pixel each, then further chunks, as ComfyUI writes its own."""
    control = struct.pack(">IIIII", 0, side, side, 0, 0) + b"\0\1\0\12\0\0"
    parts = [PNG, _header(side), png_chunk(b"acTL", struct.pack(">II", frames + 1, 0))]
    parts += [png_chunk(b"fcTL", control), png_chunk(b"IDAT", _pixels(side))]
    pixel = zlib.compress(b"\0\0")
    for number in range(1, 2 * frames, 2):
        control = struct.pack(">IIIII", number, 1, 1, 0, 0) + b"\0\1\0\12\0\0"
        parts += [
            png_chunk(b"fcTL", control),
            png_chunk(b"fdAT", struct.pack(">I", number + 1) + pixel),
        ]
    return b"".join([*parts, *chunks, png_chunk(b"IEND", b"")])


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A grey progressive JPEG: each scan has the decoder walk over every block, and says nothing.

    Args:
        side: a multiple of 8 whose blocks leave 16,384 or more beside whole runs of 32,767, such as 8,000.
        scans: how many, beside the first.
    """

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    def table(number: int, value: int) -> bytes:
        return segment(0xC4, bytes([number, 1] + [0] * 15 + [value]))

    def scan(first: int, last: int, data: bytes) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, first, last, 0])) + data

    blocks = (side // 8) ** 2
    runs = [32_767] * (blocks // 32_767) + [blocks % 32_767]
    assert runs[-1] >= 16_384, "choose another side"
    bits = "".join("0" + format(run - 16_384, "014b") for run in runs)
    bits += "1" * (-len(bits) % 8)
    empty = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])
    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC2, frame),
        table(0, 0),
        table(0x10, 0xE0),
    ]
    parts += [scan(0, 0, bytes((blocks + 7) // 8)), *[scan(1, 63, empty)] * scans, b"\xff\xd9"]
    return b"".join(parts)


def tiff(
    width: int,
    height: int,
    values: Sequence[float],
    *,
    sample_format: int = 3,
    offset_type: int = 4,
) -> bytes:
    """A grey TIFF of one strip.

    Args:
        width: in pixels.
        height: in pixels.
        values: one a pixel.
        sample_format: 3 for floating point numbers of 32 bits, 2 for whole numbers of 32 bits, 1 for bytes.
        offset_type: as what number the place of the strip is written: 4, or 11 for a floating point number.
    """
    form = {1: "B", 2: "i", 3: "f"}[sample_format]
    data = struct.pack(f"<{len(values)}{form}", *values)

    def entry(tag: int, value_type: int, value: int | bytes) -> bytes:
        return struct.pack("<HHI", tag, value_type, 1) + (
            value if isinstance(value, bytes) else struct.pack("<I", value)
        )

    offset = struct.pack("<f", 8.0) if offset_type == 11 else struct.pack("<I", 8)
    entries = [
        entry(256, 4, width),
        entry(257, 4, height),
        entry(258, 3, 8 * struct.calcsize(form)),
    ]
    entries += [
        entry(259, 3, 1),
        entry(262, 3, 1),
        entry(273, offset_type, offset),
        entry(277, 3, 1),
    ]
    entries += [entry(278, 4, height), entry(279, 4, len(data)), entry(339, 3, sample_format)]
    folder = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + folder


def avif_without_clock() -> bytes:
    """An AVIF sequence whose header counts no units a second."""
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 99, 198)]
    file = io.BytesIO()
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:])
    data = bytearray(file.getvalue())
    for box in (b"mvhd", b"mdhd"):
        start = data.index(box) + 4
        clock = start + (20 if data[start] == 1 else 12)
        data[clock : clock + 4] = bytes(4)
    return bytes(data)
