"""Output files -> what is sent of them: raw pictures in the format asked for, every other file as it was saved."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from comfy_worker.imaging import write_png
from comfy_worker.logs import ContextThreadPool
from comfy_worker.request.schema import Output
from comfy_worker.response.collect import OutputFile, sniff

__all__ = ["EncodedFile", "encode", "warnings_of"]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
# What ComfyUI keeps its graph under in a WebP file, and a further text under the one below it, and so on.
EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F
JPEG_EXIF_LIMIT = 65_533


@dataclass(frozen=True, eq=False)
class EncodedFile:
    """A file ready to be delivered.

    Attributes:
        filename: without folder.
        mime_type: by content.
        kind: ``images``, ``videos``, ``audio`` or ``files``.
        node_id: the node that made it.
        content: the file's bytes, or where they lie.
        width: of an image, in pixels.
        height: of an image, in pixels.
        warnings: sentences for the client.
    """

    filename: str
    mime_type: str
    kind: str
    node_id: str
    content: bytes | Path = field(repr=False)
    width: int | None = None
    height: int | None = None
    warnings: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The file's bytes."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def encode(files: Sequence[OutputFile], output: Output, text: Mapping[str, str]) -> list[EncodedFile]:
    """Make files ready to be delivered, all at once.

    Args:
        files: as :func:`find_files` gives them.
        output: the format asked for.
        text: what is kept in a picture where ``output.metadata`` asks for it: ``prompt`` and the like, as JSON.

    Returns:
        One for each, in the order given.
    """
    with ContextThreadPool(os.cpu_count()) as pool:
        return list(pool.map(lambda file: _encode(file, output, text if output.metadata else {}), files))


def _encode(file: OutputFile, output: Output, text: Mapping[str, str]) -> EncodedFile:
    if file.shape is None:
        return _as_saved(file, output)
    pixels = np.fromfile(file.path, np.uint8).reshape(file.shape)
    height, width, _channels = file.shape
    kind = output.format or "png"
    warnings = []
    if max(width, height) > LONGEST_SIDE.get(kind, max(width, height)):
        warnings.append(f"{file.path.name} is too large for {kind} and was encoded as png")
        kind = "png"
    if kind == "png":
        data = write_png(pixels, text)
    else:
        data, further = _by_pillow(pixels, kind, output, text)
        warnings += [f"{file.path.name} {what}" for what in further]
    name = file.path.with_suffix(SUFFIXES[kind]).name
    return EncodedFile(name, f"image/{kind}", "images", file.node_id, data, width, height, tuple(warnings))


def _by_pillow(
    pixels: npt.NDArray[np.uint8], kind: str, output: Output, text: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """Encode as JPEG or WebP; the bytes, and what the client should know."""
    warnings = []
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if kind == "jpeg" and image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
        if opaque.getchannel("A").getextrema() != (255, 255):
            warnings.append("had transparent parts, which jpeg cannot hold; they are white")
    exif = _exif(text)
    if kind == "jpeg" and len(exif) > JPEG_EXIF_LIMIT:
        exif = b""
        warnings.append("lacks its graph, which is too long for jpeg")
    file = io.BytesIO()
    if kind == "webp" and output.lossless:
        image.save(file, format=kind, lossless=True, exact=True, quality=0, method=0, exif=exif)
    else:
        image.save(file, format=kind, quality=output.quality, method=0, exif=exif)  # jpeg knows no method
    return file.getvalue(), warnings


def _exif(text: Mapping[str, str]) -> bytes:
    """Texts as ComfyUI keeps them in a WebP file."""
    if not text:
        return b""
    exif = Image.Exif()
    tags = iter(range(EXIF_MAKE, 0, -1))
    for keyword, value in text.items():
        exif[EXIF_MODEL if keyword == "prompt" else next(tags)] = f"{keyword}:{value}"
    return exif.tobytes()


def _as_saved(file: OutputFile, output: Output) -> EncodedFile:
    with file.path.open("rb") as opened:
        kind, mime_type = sniff(opened.read(1024))
    warnings = []
    width = height = None
    if kind == "images":
        try:
            with Image.open(file.path) as image:
                width, height = image.size
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            pass  # SVG, and what Pillow does not read: the client may
        if output.format and mime_type != f"image/{output.format}":
            warnings.append(f"{file.path.name} is {mime_type}, as node {file.node_id} saved it")
    if not output.metadata:
        warnings.append(f"{file.path.name} may hold its graph: node {file.node_id} saved it so")
    return EncodedFile(file.path.name, mime_type, kind, file.node_id, file.path, width, height, tuple(warnings))


def warnings_of(encoded: Iterable[EncodedFile]) -> list[str]:
    """Every warning once, in order."""
    return list(dict.fromkeys(warning for one in encoded for warning in one.warnings))
