"""Files that a client sent: base64, data URI or URL -> verified files in the job's own folder.

The type is decided by content, never by name. Knows nothing of graphs.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import av
import numpy as np
from av.container import InputContainer
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging import write_png
from comfy_worker.inputs.fetch import Fetcher
from comfy_worker.logs import ContextThreadPool

if TYPE_CHECKING:  # the settings import the contract, which imports this
    from comfy_worker.settings import Settings
from comfy_worker.deadline import Stop

__all__ = ["InputFiles", "is_in_place", "mask_file", "read_image", "read_mask", "read_media", "with_mask"]

T = TypeVar("T")

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
DATA_URI = re.compile(r"data:[^,]{0,200}?;base64,", re.ASCII)
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
PARALLEL = 8

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
# How many times the pixels of the largest picture all pictures of a job may have.
TOGETHER = 4


class Clip(NamedTuple):
    """A verified video or sound.

    Attributes:
        data: the file, as it was sent.
        suffix: what such a file is called, with its dot.
    """

    data: bytes
    suffix: str


class InputFiles:
    """The files that one job was sent.

    Args:
        folder: the job's own below ComfyUI's input folder; made with its first file.
        settings: how many there may be, how large, and what URLs may reach.
        stop: when to give up; None: never.

    Attributes:
        names: by where a file stood in the input, how ``LoadImage`` names it: ``<folder>/<name>``.
    """

    def __init__(self, folder: Path, settings: Settings, stop: Stop | None = None) -> None:
        self.names: dict[str, str] = {}
        self._folder = folder
        self._settings = settings
        self._stop = stop or Stop()
        self._fetcher = Fetcher(
            settings.max_input_mb,
            time.monotonic() + settings.input_timeout_s,
            settings.allowed_url_hosts,
            settings.allow_private_urls,
            stop=self._stop,
        )
        self._lock = threading.Lock()
        self._pixels = 0

    def add_pictures(self, sent: Mapping[str, str], *, merged: bool = False) -> None:
        """Take in pictures; what stands under ``mask`` is made a file that reads alike from any channel.

        Args:
            sent: by where it stood in the input: base64, a data URI or a URL.
            merged: whether ``image`` and ``mask`` become one file, named under both, whose alpha is the mask.

        Raises:
            InvalidMedia: one cannot be had, is no picture, is too large; or they are too many.
        """
        if not merged:
            self._take(sent, self._store_picture)
            return
        pair = {key: value for key, value in sent.items() if key in ("image", "mask")}
        self._take({key: value for key, value in sent.items() if key not in pair}, self._store_picture)
        if pair.keys() <= self.names.keys():
            return
        read = self._take(pair, self._read_picture)
        self._store("image", with_mask(read["image"], read["mask"]))
        self.names["mask"] = self.names["image"]

    def add_any(self, sent: Mapping[str, str]) -> None:
        """Take in pictures, videos and sounds, each told by its content; arguments and errors as above."""
        max_pixels = self._settings.max_input_pixels
        self._take(sent, lambda key, data: self._store(key, read_media(key, data, max_pixels)))

    def _take(self, sent: Mapping[str, str], work: Callable[[str, bytes], T]) -> dict[str, T]:
        """What ``work`` makes of each file that is not there yet, several at once."""
        new = {key: value for key, value in sent.items() if key not in self.names}
        if len(self.names) + len(new) > self._settings.max_inputs:
            raise InvalidMedia(
                f"the input holds {len(self.names) + len(new)} files; send at most {self._settings.max_inputs}"
            )
        pool = ContextThreadPool(PARALLEL, thread_name_prefix="input")
        try:
            taken = {key: pool.submit(lambda key: work(key, self._bytes(key, new[key])), key) for key in new}
            return {key: self._stop.wait_for(one) for key, one in taken.items()}
        finally:
            # A name that takes long to be resolved is not waited for; its file is not written any more.
            pool.shutdown(wait=not self._stop.is_due, cancel_futures=True)

    def _bytes(self, key: str, value: str) -> bytes:
        if URL.match(value):
            return self._fetcher.fetch(key, value)
        if len(value) * 3 / 4 > self._settings.max_input_mb * 1_000_000:
            raise InvalidMedia(f"{key} is too large; send at most {self._settings.max_input_mb:g} MB")
        return decode(key, value)

    def _read_picture(self, key: str, data: bytes) -> Image.Image:
        return (read_mask if key == "mask" else read_image)(key, data, self._settings.max_input_pixels)

    def _store_picture(self, key: str, data: bytes) -> None:
        picture = self._read_picture(key, data)
        self._store(key, mask_file(picture) if key == "mask" else picture)

    def _store(self, key: str, file: Image.Image | Clip) -> None:
        """Write a file under a name that we choose."""
        self._stop.check()
        slug = re.sub(r"[^A-Za-z0-9]+", "_", key)[:40]
        limit = TOGETHER * self._settings.max_input_pixels
        with self._lock:
            self._pixels += 0 if isinstance(file, Clip) else file.width * file.height
            if self._pixels > limit:
                raise InvalidMedia(f"the pictures have too many pixels together; send at most {limit:,}")
            name = f"{len(self.names)}_{slug}{file.suffix if isinstance(file, Clip) else '.png'}"
            self.names[key] = f"{self._folder.name}/{name}"
        self._folder.mkdir(exist_ok=True)
        if isinstance(file, Clip):
            (self._folder / name).write_bytes(file.data)
        elif file.mode in ("1", "P"):
            file.save(self._folder / name, format="PNG", compress_level=1)
        else:
            pixels = np.asarray(file).reshape(file.height, file.width, -1)
            (self._folder / name).write_bytes(write_png(pixels, {}))


def is_in_place(value: object) -> bool:
    """Whether a value that should name a file is the file itself: a URL or a data URI."""
    return isinstance(value, str) and bool(URL.match(value) or DATA_URI.match(value))


def decode(key: str, value: str) -> bytes:
    """Decode base64, with or without a data URI's head.

    Args:
        key: where the value stood in the input, for the error.
        value: base64 text; white space in it is ignored.

    Raises:
        InvalidMedia: it is neither.
    """
    head = DATA_URI.match(value)
    text = "".join((value[head.end() :] if head else value).split())
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMedia(f"{key} must be base64, a data URI or a URL") from None


def read_image(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """Verify a picture and apply its EXIF orientation.

    Args:
        key: where it stood in the input, for the error.
        data: a file of one of the formats :data:`PICTURES`; of an animation, the first frame counts.
        max_pixels: width times height.

    Raises:
        InvalidMedia: it is no picture, is cut short, or has too many pixels.
    """
    try:
        return _picture(key, data, max_pixels)
    except UnidentifiedImageError:
        raise InvalidMedia(
            f"{key} is no picture that can be read, or is cut short; send PNG, JPEG or WebP"
        ) from None


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
        with _opened(data) as container:
            for stream in container.streams.video:
                _check_pixels(key, stream.width, stream.height, max_pixels)
            next(container.decode((*container.streams.video, *container.streams.audio)[0]))
        with _opened(data) as container:
            if not _is_cut(container):
                return Clip(data, CLIPS[_format(container)])
    except (av.FFmpegError, StopIteration, ValueError, AttributeError, IndexError):
        pass  # PyAV gives a stream of an unknown codec no width
    raise InvalidMedia(
        f"{key} is no picture, video or sound that can be read, or is cut short; "
        "send PNG, JPEG, WebP, MP4, WebM, FLAC, MP3 or WAV"
    )


def _opened(data: bytes) -> InputContainer:
    options = {"format_whitelist": ",".join(CLIPS)}
    return av.open(io.BytesIO(data), "r", metadata_errors="replace", container_options=options)


def _format(container: InputContainer) -> str:
    return container.format.name.partition(",")[0]


def _is_cut(container: InputContainer) -> bool:
    """Whether a clip ends before its header says; its packets are looked at, and not decoded."""
    kind, end_s = _format(container), 0.0
    for packet in itertools.islice(container.demux(), MAX_PACKETS):
        if packet.is_corrupt and kind in MARKED:
            return True
        if packet.pts is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        elif packet.size == 0:  # the end of a stream
            said_s = (container.duration or 0) / av.time_base
            return kind in TIMED and end_s < said_s - max(0.5, 0.02 * said_s)
    return False


def _picture(key: str, data: bytes, max_pixels: int) -> Image.Image:
    """A picture as ComfyUI reads it right; ``UnidentifiedImageError`` where it does not even begin as one."""
    try:
        with Image.open(io.BytesIO(data), formats=PICTURES) as opened:
            _check_pixels(key, opened.width, opened.height, max_pixels)
            image = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(key, max_pixels) from None
    except UnidentifiedImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error):
        raise InvalidMedia(f"{key} is a picture that is broken or cut short; send the whole file") from None
    if image.mode.startswith("I"):  # 16 bits of grey, which ComfyUI would take for white
        image = image.point(lambda grey: grey / 256).convert("L")
    return image if image.mode in PNG_MODES else image.convert("RGB")


def _check_pixels(key: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_many_pixels(key, max_pixels)


def _too_many_pixels(key: str, max_pixels: int) -> InvalidMedia:
    return InvalidMedia(f"{key} has too many pixels; send at most {max_pixels:,}")


def mask_file(mask: Image.Image) -> Image.Image:
    """A mask as ``LoadImageMask`` reads it alike from any channel: it inverts alpha and no other."""
    return Image.merge("RGBA", [mask, mask, mask, ImageChops.invert(mask)])


def with_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture that carries its mask as ``LoadImage`` reads it: transparent = make anew."""
    masked = image.convert("RGBA")
    masked.putalpha(ImageChops.invert(mask if mask.size == image.size else mask.resize(image.size)))
    return masked
