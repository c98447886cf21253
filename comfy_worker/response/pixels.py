"""Encodes what nodes made, and makes pictures smaller.

Runs in a process that can be ended (:mod:`comfy_worker.image_processes`): a picture of 64 megapixels keeps an
encoder busy for many seconds, and no thread in a C library hears that its job is over.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from comfy_worker.imaging import write_png

__all__ = ["Encoder"]

LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
# What ComfyUI keeps its graph under in a WebP file, and a further text under the one below it, and so on.
EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F
JPEG_EXIF_LIMIT = 65_533

Pixels = npt.NDArray[np.uint8]
Answer = tuple[dict[str, Any], list[bytes]]


class Encoder:
    """The steps of a task that encodes the files of one job."""

    def __init__(self) -> None:
        self._text: dict[str, str] = {}

    def prepare(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Keep the ``text`` that goes into each picture, by keyword."""
        self._text = request["text"]
        return {}, []

    def encode(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Encode raw pixels.

        Args:
            request: ``source`` and ``target``, paths; ``shape``, (height, width, channels); and ``format``,
                ``quality`` and ``lossless``, as a request's ``output`` has them.

        Returns:
            The ``format`` that it became, and ``warnings``: what the client should know, to follow the name.
        """
        pixels = np.fromfile(request["source"], np.uint8).reshape(request["shape"])
        height, width, _channels = pixels.shape
        wanted, warnings = request["format"], []
        if max(width, height) > LONGEST_SIDE.get(wanted, max(width, height)):
            warnings.append(f"is too large for {wanted} and was encoded as png")
            wanted = "png"
        if wanted == "png":
            data = write_png(pixels, self._text)
        else:
            data, further = self._by_pillow(pixels, wanted, request)
            warnings += further
        Path(request["target"]).write_bytes(data)
        return {"format": wanted, "warnings": warnings}, []

    def _by_pillow(self, pixels: Pixels, wanted: str, request: dict[str, Any]) -> tuple[bytes, list[str]]:
        """Encode as JPEG or WebP; the bytes, and what the client should know."""
        warnings = []
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if wanted == "jpeg" and image.has_transparency_data:
            opaque = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
            if opaque.getchannel("A").getextrema() != (255, 255):
                warnings.append("had transparent parts, which jpeg cannot hold; they are white")
        exif = _exif(self._text)
        if wanted == "jpeg" and len(exif) > JPEG_EXIF_LIMIT:
            exif = b""
            warnings.append("lacks its graph, which is too long for jpeg")
        file = io.BytesIO()
        if wanted == "webp" and request["lossless"]:
            image.save(file, format=wanted, lossless=True, exact=True, quality=0, method=0, exif=exif)
        else:
            image.save(file, format=wanted, quality=request["quality"], method=0, exif=exif)  # jpeg has no method
        return file.getvalue(), warnings

    def measure(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Width and height of the picture at ``source``; None where Pillow does not read it: the client may."""
        try:
            with Image.open(request["source"]) as image:
                return {"size": image.size}, []
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return {"size": None}, []

    def shrink(self, request: dict[str, Any], blocks: list[bytes]) -> Answer:
        """Make a still picture smaller.

        Args:
            request: ``source``, the path of a picture, or None where its bytes come as a block; ``quality``; and
                ``scale`` of each side.
            blocks: the picture, where there is no ``source``.

        Returns:
            Its ``format`` and ``size``, and its bytes: WebP where it is one or has transparency, else JPEG.
            ``still`` is false where it has to stay as it is, such as an animation.
        """
        Image.MAX_IMAGE_PIXELS = None  # what nodes made may be as large as they like
        with Image.open(request["source"] or io.BytesIO(blocks[0])) as opened:
            # Grey of 16 bits or of floating point numbers would become white or black.
            if getattr(opened, "n_frames", 1) > 1 or opened.mode.startswith(("I", "F")):
                return {"still": False}, []
            wanted = "webp" if opened.format == "WEBP" or opened.has_transparency_data else "jpeg"
            picture: Image.Image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
        scale = request["scale"]
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        if max(size) > LONGEST_SIDE[wanted]:
            return {"still": False}, []
        target = io.BytesIO()
        picture.save(target, format=wanted, quality=request["quality"])
        return {"still": True, "format": wanted, "size": size}, [target.getvalue()]


def _exif(text: dict[str, str]) -> bytes:
    """Texts as ComfyUI keeps them in a WebP file."""
    if not text:
        return b""
    exif = Image.Exif()
    tags = iter(range(EXIF_MAKE, 0, -1))
    for keyword, value in text.items():
        exif[EXIF_MODEL if keyword == "prompt" else next(tags)] = f"{keyword}:{value}"
    return exif.tobytes()
