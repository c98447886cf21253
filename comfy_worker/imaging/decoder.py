"""Decodes the files that clients send: pictures, masks, videos and sounds.

Runs in a process that can be ended (:mod:`comfy_worker.imaging.processes`), because nobody knows
how long a client's file takes. The header of each file is read first; its pixels are decoded only
if they are within the limits.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging.messages import Answer
from comfy_worker.imaging.png import write_plain_png

__all__ = ["Clip", "Decoder", "mask_file", "read_image", "read_mask", "read_media", "with_mask"]

PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}

# Pillow reads about fifty formats, one of them by running Ghostscript. These are the ones that
# people send.
PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
# The suffix of each format that is accepted, by FFmpeg's name. Playlists are not: they name further
# files.
CLIPS = {
    "mov": ".mp4",
    "matroska": ".mkv",
    "avi": ".avi",
    "ogg": ".ogg",
    "flac": ".flac",
    "mp3": ".mp3",
    "wav": ".wav",
    "aac": ".aac",
}
# Formats where FFmpeg marks a packet that is cut short. It would mark the last packet of a complete
# WAV too.
MARKED = {"mov", "avi"}
# Formats whose header holds the clip's duration. The duration of an MP3 is a guess.
TIMED = {"matroska", "flac"}
MAX_PACKETS = 200_000
# The decoder walks over all pixels for each scan of a JPEG. Cameras and editors write about ten
# scans.
MAX_SCANS = 100
# A marker within the data of a scan that is neither a stuffed byte nor a restart.
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
# Markers without a segment behind them: TEM, SOI, restarts.
LONE_MARKERS = {0x01, 0xD8, *range(0xD0, 0xD8)}
SOS, EOI = 0xDA, 0xD9

# What Pillow and its plugins raise for a damaged file. An image sequence without a time base
# divides by zero.
BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class Clip(NamedTuple):
    """A verified video or sound.

    Attributes:
        data: the file as the client sent it.
        suffix: of the file's name, with its dot.
    """

    data: bytes
    suffix: str


@dataclass(frozen=True)
class _ProbedFile:
    """A file whose header was read.

    Attributes:
        key: the file's key in the input, for errors.
        content: ``picture``, ``mask``, ``merged`` (a picture and its mask) or ``any``.
        blocks: the file's bytes; two files for ``merged``.
        max_pixels: limit of width times height of each.
    """

    key: str
    content: str
    blocks: list[bytes]
    max_pixels: int


class Decoder:
    """Reads the files of one job."""

    def __init__(self) -> None:
        self._files: list[_ProbedFile] = []

    def probe(self, request: dict[str, Any], blocks: list[bytes]) -> Answer:
        """Read the header of a file, and keep the file for :meth:`store`.

        Args:
            request: ``key``, ``content`` and ``max_pixels``; see :class:`_ProbedFile`.
            blocks: the file; for ``merged`` the picture and the mask.

        Returns:
            ``pixels``: how many pixels the file has, or both files have together.

        Raises:
            InvalidMedia: the file has another content, or too many pixels.
        """
        file = _ProbedFile(request["key"], request["content"], blocks, request["max_pixels"])
        keys = ["image", "mask"] if file.content == "merged" else [file.key]
        pixels = 0
        for key, data in zip(keys, blocks, strict=True):
            with contextlib.suppress(UnidentifiedImageError):
                pixels += _count_pixels(key, data, file.max_pixels)
                continue
            if file.content != "any":
                raise _not_a_picture(key)
            _check_clip(key, data, file.max_pixels)
        self._files.append(file)
        return {"pixels": pixels}, []

    def store(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Decode a probed file, and write it in a form that ComfyUI reads correctly.

        Args:
            request: ``index``, counted in the order of the probes, and ``target``, a path without
                suffix.

        Returns:
            ``suffix``: the suffix of the file that was written.
        """
        file = self._files[request["index"]]
        return {"suffix": _write(_read(file), Path(request["target"]))}, []


def _read(file: _ProbedFile) -> Image.Image | Clip:
    """Decode a file according to its content."""
    if file.content == "merged":
        image = read_image("image", file.blocks[0], file.max_pixels)
        return with_mask(image, read_mask("mask", file.blocks[1], file.max_pixels))
    data = file.blocks[0]
    if file.content == "mask":
        return mask_file(read_mask(file.key, data, file.max_pixels))
    if file.content == "any":
        return read_media(file.key, data, file.max_pixels)
    return read_image(file.key, data, file.max_pixels)


def _write(file: Image.Image | Clip, target: Path) -> str:
    """Write a file, and return its suffix."""
    if isinstance(file, Clip):
        target.with_name(target.name + file.suffix).write_bytes(file.data)
        return file.suffix
    path = target.with_name(f"{target.name}.png")
    if file.mode in ("1", "P"):
        file.save(path, format="PNG", compress_level=0)
    else:
        pixels = np.asarray(file).reshape(file.height, file.width, -1)
        path.write_bytes(write_plain_png(pixels))
    return ".png"


def read_image(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """Decode a picture and apply its EXIF orientation.

    Args:
        key: the file's key in the input, for the error.
        data: a file in one of the formats :data:`PICTURES`. Only the first frame of an animation is
            read.
        max_pixels: limit of width times height.

    Raises:
        InvalidMedia: the file is not a picture, is cut short, has too many pixels, or takes too
            long to decode.
    """
    try:
        return _decode_picture(key, data, max_pixels)
    except UnidentifiedImageError:
        raise _not_a_picture(key) from None


def read_mask(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """Decode a mask: the alpha channel if the picture has one, else its brightness.

    Returns:
        A picture of mode L, where 255 means repaint.
    """
    image = read_image(key, data, max_pixels)
    if image.has_transparency_data:
        return image.convert("RGBA").getchannel("A")
    return image.convert("L")


def read_media(key: str, data: bytes, max_pixels: int) -> Image.Image | Clip:
    """Decode a picture, or verify a video or a sound.

    Args:
        key: the file's key in the input, for the error.
        data: the file.
        max_pixels: limit of width times height of a picture, and of a video's frame.

    Raises:
        InvalidMedia: the file is none of them, is cut short, or has too many pixels.
    """
    with contextlib.suppress(UnidentifiedImageError):
        return _decode_picture(key, data, max_pixels)
    try:
        _check_clip(key, data, max_pixels)
        with _opened(data) as container:
            streams = [*container.streams.video, *container.streams.audio]
            next(container.decode(streams[0]))
        with _opened(data) as container:
            if not _is_cut(container):
                return Clip(data, CLIPS[_format(container)])
    except (av.FFmpegError, StopIteration, ValueError, AttributeError, IndexError):
        pass
    raise _not_media(key)


def mask_file(mask: Image.Image) -> Image.Image:
    """Return a mask that ``LoadImageMask`` reads the same from any channel.

    It inverts alpha and no other channel.
    """
    return Image.merge("RGBA", [mask, mask, mask, ImageChops.invert(mask)])


def with_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Put a mask into a picture's alpha channel, where ``LoadImage`` reads it.

    Transparent means repaint.
    """
    masked = image.convert("RGBA")
    if mask.size != image.size:
        mask = mask.resize(image.size)
    masked.putalpha(ImageChops.invert(mask))
    return masked


# ---- pictures


@contextmanager
def _open_picture(key: str, data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Read only the header of a picture, and check its limits.

    Raises:
        InvalidMedia: the picture exceeds a limit or is damaged, also if the block finds the damage.
        UnidentifiedImageError: the file does not begin as a picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=PICTURES) as opened:
            if opened.width * opened.height > max_pixels:
                raise _too_many_pixels(key, max_pixels)
            if opened.format in ("JPEG", "MPO") and _count_scans(data) > MAX_SCANS:
                raise InvalidMedia(
                    f"{key} is a JPEG of more than {MAX_SCANS} scans, which would take too long to "
                    "decode; save it again as a plain JPEG or PNG"
                )
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(key, max_pixels) from None
    except UnidentifiedImageError:
        raise
    except BROKEN:
        problem = f"{key} is a damaged or incomplete picture; send the complete file"
        raise InvalidMedia(problem) from None


def _count_pixels(key: str, data: bytes, max_pixels: int) -> int:
    """Count the pixels of a picture by its header; raises as :func:`_open_picture` does."""
    with _open_picture(key, data, max_pixels) as opened:
        return opened.width * opened.height


def _decode_picture(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """Decode a picture to a mode that ComfyUI reads correctly; raises as ``_open_picture`` does."""
    with _open_picture(key, data, max_pixels) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I") or image.mode == "F":
            return _to_eight_bits(key, image)
        return image if image.mode in PNG_MODES else image.convert("RGB")


def _to_eight_bits(key: str, image: Image.Image) -> Image.Image:
    """Convert 16 bits or floating point numbers, which ComfyUI would read as white or black."""
    values = np.asarray(image)
    least = float(values.min())
    most = float(values.max())
    if image.mode == "F":
        if least >= 0 and most <= 1:  # false for NaN
            return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
        problem = f"{key} holds floating point numbers outside of 0 to 1; send 8 or 16 bits"
        raise InvalidMedia(problem)
    if least < 0:
        raise InvalidMedia(f"{key} holds negative numbers; send unsigned numbers of 8 or 16 bits")
    if most > 0xFFFF:
        raise InvalidMedia(f"{key} has more than 16 bits per channel; send 8 or 16 bits")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def _count_scans(data: bytes) -> int:
    """Count the scans of a JPEG, up to one more than the limit.

    Those of a thumbnail in its header do not count.
    """
    position = 2
    scans = 0
    while scans <= MAX_SCANS:
        match = JPEG_MARKER.search(data, position)
        if match is None:
            break
        marker = match[1][0]
        position = match.end()
        if marker == EOI:
            break
        if marker not in LONE_MARKERS:
            scans += marker == SOS
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


# ---- videos and sounds


def _opened(data: bytes) -> InputContainer:
    options = {"format_whitelist": ",".join(CLIPS)}
    return av.open(io.BytesIO(data), "r", metadata_errors="replace", container_options=options)


def _check_clip(key: str, data: bytes, max_pixels: int) -> None:
    """Check that a file begins as a video or sound, and that its frames are not too large."""
    try:
        with _opened(data) as container:
            for stream in container.streams.video:
                if stream.width * stream.height > max_pixels:
                    raise _too_many_pixels(key, max_pixels)
    except (av.FFmpegError, ValueError, AttributeError, IndexError):
        # PyAV raises AttributeError for the width of a stream whose codec is unknown.
        raise _not_media(key) from None


def _format(container: InputContainer) -> str:
    return container.format.name.partition(",")[0]


def _is_cut(container: InputContainer) -> bool:
    """Whether a clip ends before the end that its header gives.

    Reads the packets without decoding them.
    """
    name = _format(container)
    end_s = 0.0
    for packet in itertools.islice(container.demux(), MAX_PACKETS):
        if packet.is_corrupt and name in MARKED:
            return True
        if packet.pts is not None:
            end = packet.pts + (packet.duration or 0)
            end_s = max(end_s, float(end * packet.time_base))
        elif packet.size == 0:  # the end of a stream
            return name in TIMED and _ends_early(container, end_s)
    return False


def _ends_early(container: InputContainer, end_s: float) -> bool:
    header_s = (container.duration or 0) / av.time_base
    tolerance_s = max(0.5, 0.02 * header_s)
    return end_s < header_s - tolerance_s


# ---- errors


def _not_a_picture(key: str) -> InvalidMedia:
    return InvalidMedia(
        f"{key} cannot be decoded: the data is not a picture in a supported format, "
        "or is cut short; send PNG, JPEG or WebP"
    )


def _not_media(key: str) -> InvalidMedia:
    return InvalidMedia(
        f"{key} cannot be decoded: the data is not a picture, video or sound in a supported "
        "format, or is cut short; send PNG, JPEG, WebP, MP4, WebM, FLAC, MP3 or WAV"
    )


def _too_many_pixels(key: str, max_pixels: int) -> InvalidMedia:
    return InvalidMedia(f"{key} has too many pixels; send at most {max_pixels:,}")
