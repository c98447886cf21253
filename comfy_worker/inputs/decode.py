"""Decodes what clients send: pictures, masks, videos and sounds.

Runs in a process that can be ended (:mod:`comfy_worker.image_processes`), since nobody knows how long a stranger's
file takes. Of each file the header is read first; its pixels are decoded once the limits are known to hold.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging import write_png

__all__ = ["Clip", "Decoder", "mask_file", "read_image", "read_mask", "read_media", "with_mask"]

PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}

# Pillow reads some fifty formats, one of them by running Ghostscript; these are those that people send.
PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
# By FFmpeg's name, what a file of that format is called. Playlists, which name further files, are not among them.
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
# Where FFmpeg marks the packet that a file ends in; it marks the last one of a whole WAV without a length too.
MARKED = {"mov", "avi"}
# Where the header tells how long a clip is; that of an MP3 is a guess.
TIMED = {"matroska", "flac"}
MAX_PACKETS = 200_000
# Each scan of a JPEG has the decoder walk over the whole picture; cameras and editors write some ten.
MAX_SCANS = 100
# In the data of a scan: a marker that is neither a stuffed byte nor a restart.
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
# Markers that stand alone: TEM, SOI, restarts.
LONE_MARKERS = {0x01, 0xD8, *range(0xD0, 0xD8)}
SOS, EOI = 0xDA, 0xD9

# What Pillow and its plugins raise for a file that is broken; a sequence without a clock divides by zero.
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
        data: the file, as it was sent.
        suffix: what such a file is called, with its dot.
    """

    data: bytes
    suffix: str


@dataclass(frozen=True)
class _Held:
    """A file whose header is known.

    Attributes:
        key: where it stood in the input, for errors.
        content: ``picture``, ``mask``, ``merged`` (a picture and its mask) or ``any``.
        blocks: the file; of ``merged`` two.
        max_pixels: width times height of each.
    """

    key: str
    content: str
    blocks: list[bytes]
    max_pixels: int


class Decoder:
    """The steps of a task that reads the files of one job."""

    def __init__(self) -> None:
        self._held: list[_Held] = []

    def probe(self, request: dict[str, Any], blocks: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Read the header of a file, and keep the file for :meth:`store`.

        Args:
            request: ``key``, ``content`` and ``max_pixels``, as :class:`_Held` has them.
            blocks: the file; of ``merged`` the picture and the mask.

        Returns:
            How many ``pixels`` it has, all together.

        Raises:
            InvalidMedia: it is not what it should be, or has too many pixels.
        """
        held = _Held(request["key"], request["content"], blocks, request["max_pixels"])
        keys = ["image", "mask"] if held.content == "merged" else [held.key]
        pixels = 0
        for key, data in zip(keys, blocks, strict=True):
            with contextlib.suppress(UnidentifiedImageError):
                pixels += _probed(key, data, held.max_pixels)
                continue
            if held.content != "any":
                raise _no_picture(key)
            _check_clip(key, data, held.max_pixels)
        self._held.append(held)
        return {"pixels": pixels}, []

    def store(self, request: dict[str, Any], _blocks: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Decode a file that was probed, and write it as ComfyUI reads it right.

        Args:
            request: ``index``, in the order of the probes, and ``target``, a path without suffix.

        Returns:
            The ``suffix`` of the file that is there now.
        """
        held = self._held[request["index"]]
        read: Callable[[str, bytes, int], Image.Image | Clip] = read_image
        if held.content == "merged":
            image, mask = held.blocks
            masked = with_mask(
                read_image("image", image, held.max_pixels), read_mask("mask", mask, held.max_pixels)
            )
            return {"suffix": _write(masked, Path(request["target"]))}, []
        if held.content == "any":
            read = read_media
        elif held.content == "mask":
            read = _mask_file_of
        return {"suffix": _write(read(held.key, held.blocks[0], held.max_pixels), Path(request["target"]))}, []


def _mask_file_of(key: str, data: bytes, max_pixels: int) -> Image.Image:
    return mask_file(read_mask(key, data, max_pixels))


def _write(file: Image.Image | Clip, target: Path) -> str:
    """Write a file; its suffix."""
    if isinstance(file, Clip):
        target.with_name(target.name + file.suffix).write_bytes(file.data)
        return file.suffix
    path = target.with_name(f"{target.name}.png")
    if file.mode in ("1", "P"):
        file.save(path, format="PNG", compress_level=1)
    else:
        pixels = np.asarray(file).reshape(file.height, file.width, -1)
        path.write_bytes(write_png(pixels, {}))
    return ".png"


def read_image(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """Verify a picture and apply its EXIF orientation.

    Args:
        key: where it stood in the input, for the error.
        data: a file of one of the formats :data:`PICTURES`; of an animation, the first frame counts.
        max_pixels: width times height.

    Raises:
        InvalidMedia: it is no picture, is cut short, has too many pixels, or takes too long to decode.
    """
    try:
        return _picture(key, data, max_pixels)
    except UnidentifiedImageError:
        raise _no_picture(key) from None


def read_mask(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """Verify a mask: the alpha channel of a picture that has one, the grey of any other.

    Returns:
        A picture of mode L, 255 = make anew.
    """
    image = read_image(key, data, max_pixels)
    if image.has_transparency_data:
        return image.convert("RGBA").getchannel("A")
    return image.convert("L")


def read_media(key: str, data: bytes, max_pixels: int) -> Image.Image | Clip:
    """Verify a picture, a video or a sound.

    Args:
        key: where it stood in the input, for the error.
        data: the file.
        max_pixels: width times height of a picture, and of a video's frame.

    Raises:
        InvalidMedia: it is none of them, is cut short, or has too many pixels.
    """
    try:
        return _picture(key, data, max_pixels)
    except UnidentifiedImageError:
        pass
    try:
        _check_clip(key, data, max_pixels)
        with _opened(data) as container:
            next(container.decode((*container.streams.video, *container.streams.audio)[0]))
        with _opened(data) as container:
            if not _is_cut(container):
                return Clip(data, CLIPS[_format(container)])
    except (av.FFmpegError, StopIteration, ValueError, AttributeError, IndexError):
        pass
    raise _no_media(key)


def mask_file(mask: Image.Image) -> Image.Image:
    """A mask as ``LoadImageMask`` reads it alike from any channel: it inverts alpha and no other."""
    return Image.merge("RGBA", [mask, mask, mask, ImageChops.invert(mask)])


def with_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture that carries its mask as ``LoadImage`` reads it: transparent = make anew."""
    masked = image.convert("RGBA")
    masked.putalpha(ImageChops.invert(mask if mask.size == image.size else mask.resize(image.size)))
    return masked


# ---- pictures


@contextmanager
def _header(key: str, data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture of which only the header is read yet, and whose limits hold."""
    try:
        with Image.open(io.BytesIO(data), formats=PICTURES) as opened:
            if opened.width * opened.height > max_pixels:
                raise _too_many_pixels(key, max_pixels)
            if opened.format in ("JPEG", "MPO") and _scans(data) > MAX_SCANS:
                raise InvalidMedia(
                    f"{key} is a JPEG of more than {MAX_SCANS} scans, which takes too long to decode; save it anew"
                )
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(key, max_pixels) from None
    except UnidentifiedImageError:
        raise
    except BROKEN:
        raise InvalidMedia(f"{key} is a picture that is broken or cut short; send the whole file") from None


def _probed(key: str, data: bytes, max_pixels: int) -> int:
    """How many pixels a picture has; ``UnidentifiedImageError`` where it does not even begin as one."""
    with _header(key, data, max_pixels) as opened:
        return opened.width * opened.height


def _picture(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """A picture as ComfyUI reads it right; ``UnidentifiedImageError`` where it does not even begin as one."""
    with _header(key, data, max_pixels) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I") or image.mode == "F":
            return _eight_bits(key, image)
        return image if image.mode in PNG_MODES else image.convert("RGB")


def _eight_bits(key: str, image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits, or of floating point numbers, which ComfyUI would take for white or black."""
    values = np.asarray(image)
    least, most = float(values.min()), float(values.max())
    if image.mode == "F":
        if least >= 0 and most <= 1:  # nor is NaN
            return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
        raise InvalidMedia(
            f"{key} holds floating point numbers that are not all from 0 to 1; send a picture of 8 or 16 bits"
        )
    if least < 0 or most > 0xFFFF:
        raise InvalidMedia(f"{key} holds numbers of more than 16 bits; send a picture of 8 or 16 bits")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def _scans(data: bytes) -> int:
    """How many scans a JPEG has, as far as the limit; those of a thumbnail in its header are not its own."""
    position, scans = 2, 0
    while scans <= MAX_SCANS:
        found = JPEG_MARKER.search(data, position)
        if found is None:
            break
        marker, position = found[1][0], found.end()
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
    """Make sure that a file begins as a video or sound, of frames that are not too large."""
    try:
        with _opened(data) as container:
            for stream in container.streams.video:
                if stream.width * stream.height > max_pixels:
                    raise _too_many_pixels(key, max_pixels)
    except (av.FFmpegError, ValueError, AttributeError, IndexError):
        raise _no_media(key) from None  # PyAV gives a stream of an unknown codec no width


def _format(container: InputContainer) -> str:
    return container.format.name.partition(",")[0]


def _is_cut(container: InputContainer) -> bool:
    """Whether a clip ends before its header says; its packets are looked at, and not decoded."""
    name, end_s = _format(container), 0.0
    for packet in itertools.islice(container.demux(), MAX_PACKETS):
        if packet.is_corrupt and name in MARKED:
            return True
        if packet.pts is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        elif packet.size == 0:  # the end of a stream
            promised_s = (container.duration or 0) / av.time_base
            return name in TIMED and end_s < promised_s - max(0.5, 0.02 * promised_s)
    return False


# ---- errors


def _no_picture(key: str) -> InvalidMedia:
    return InvalidMedia(f"{key} is no picture that can be read, or is cut short; send PNG, JPEG or WebP")


def _no_media(key: str) -> InvalidMedia:
    return InvalidMedia(
        f"{key} is no picture, video or sound that can be read, or is cut short; "
        "send PNG, JPEG, WebP, MP4, WebM, FLAC, MP3 or WAV"
    )


def _too_many_pixels(key: str, max_pixels: int) -> InvalidMedia:
    return InvalidMedia(f"{key} has too many pixels; send at most {max_pixels:,}")
