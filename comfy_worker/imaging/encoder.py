"""Encodes the pixels that nodes saved, and makes pictures smaller.

Runs in a process that can be ended (:mod:`comfy_worker.imaging.processes`): a picture of 64
megapixels keeps an encoder busy for many seconds, and a thread in a C library cannot be stopped
when its job ends.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from comfy_worker.imaging.messages import Answer
from comfy_worker.imaging.png import write_png

__all__ = ["Encoder"]

LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
# In a WebP file ComfyUI stores ``prompt`` under the tag Model, and further texts under Make and the
# tags below it.
EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F
JPEG_EXIF_LIMIT = 65_533
# What Pillow raises if it cannot read a picture.
UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)

Pixels = npt.NDArray[np.uint8]


class Encoder:
    """The steps of a task that encodes the files of one job."""

    def __init__(self) -> None:
        self._text: dict[str, str] = {}

    def prepare(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Keep ``text``, by keyword: the metadata of each picture that is encoded later."""
        self._text = request["text"]
        return {}, []

    def encode(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Encode raw pixels.

        Args:
            request: ``source`` and ``target``, paths; ``shape``, (height, width, channels); and
                ``format``, ``quality`` and ``lossless`` of the job's ``output``.

        Returns:
            ``format``: the format of the file. ``warnings``: for the client, each to be put behind
            the file's name.
        """
        pixels = np.fromfile(request["source"], np.uint8).reshape(request["shape"])
        height, width, _channels = pixels.shape
        image_format = request["format"]
        warnings = []
        longest_side = max(width, height)
        if longest_side > LONGEST_SIDE.get(image_format, longest_side):
            warnings.append(f"is too large for {image_format} and was encoded as png")
            image_format = "png"
        if image_format == "png":
            data = write_png(pixels, self._text)
        elif image_format == "webp":
            data = self._webp(pixels, request)
        else:
            data, jpeg_warnings = self._jpeg(pixels, request["quality"])
            warnings += jpeg_warnings
        Path(request["target"]).write_bytes(data)
        return {"format": image_format, "warnings": warnings}, []

    def _webp(self, pixels: Pixels, request: dict[str, Any]) -> bytes:
        image = _image_of(pixels)
        file = io.BytesIO()
        # Method 0 is many times faster than the default, and the files are little larger.
        if request["lossless"]:
            options = {"lossless": True, "exact": True, "quality": 0}
        else:
            options = {"quality": request["quality"]}
        image.save(file, format="webp", method=0, exif=_exif(self._text), **options)
        return file.getvalue()

    def _jpeg(self, pixels: Pixels, quality: int) -> tuple[bytes, list[str]]:
        """Encode as JPEG; returns the bytes, and warnings for the client."""
        warnings = []
        image = _image_of(pixels)
        if image.has_transparency_data:
            transparent = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, transparent).convert("RGB")
            if transparent.getchannel("A").getextrema() != (255, 255):
                warnings.append("had transparent parts, which jpeg cannot store; they are white")
        exif = _exif(self._text)
        if len(exif) > JPEG_EXIF_LIMIT:
            exif = b""
            warnings.append("does not contain its workflow, which is too long for jpeg")
        file = io.BytesIO()
        image.save(file, format="jpeg", quality=quality, exif=exif)
        return file.getvalue(), warnings

    def measure(self, request: dict[str, Any], _blocks: list[bytes]) -> Answer:
        """Read ``size``, (width, height), of the picture at ``source``; None if that fails."""
        try:
            with Image.open(request["source"]) as image:
                return {"size": image.size}, []
        except UNREADABLE:
            return {"size": None}, []

    def shrink(self, request: dict[str, Any], blocks: list[bytes]) -> Answer:
        """Make a still picture smaller.

        Args:
            request: ``source``, the path of a picture, or None if its bytes are a block;
                ``quality``; and ``scale`` of each side.
            blocks: the picture, if there is no ``source``.

        Returns:
            ``format`` and ``size``, and the bytes. A WebP stays one, transparency becomes WebP, all
            else JPEG. ``still`` is false if the picture must stay as it is, such as an animation.
        """
        Image.MAX_IMAGE_PIXELS = None  # pictures of the workflow's nodes may have any size
        with Image.open(request["source"] or io.BytesIO(blocks[0])) as opened:
            is_animated = getattr(opened, "n_frames", 1) > 1
            # Grey of 16 bits or of floating point numbers would become white or black.
            if is_animated or opened.mode.startswith(("I", "F")):
                return {"still": False}, []
            is_transparent = opened.has_transparency_data
            image_format = "webp" if opened.format == "WEBP" or is_transparent else "jpeg"
            picture: Image.Image = opened.convert("RGBA" if is_transparent else "RGB")
        width = max(1, round(picture.width * request["scale"]))
        height = max(1, round(picture.height * request["scale"]))
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        if max(width, height) > LONGEST_SIDE[image_format]:
            return {"still": False}, []
        target = io.BytesIO()
        picture.save(target, format=image_format, quality=request["quality"])
        answer = {"still": True, "format": image_format, "size": (width, height)}
        return answer, [target.getvalue()]


def _image_of(pixels: Pixels) -> Image.Image:
    is_grey = pixels.shape[2] == 1
    return Image.fromarray(pixels[..., 0] if is_grey else pixels)


def _exif(text: dict[str, str]) -> bytes:
    """Return EXIF that holds texts in the way that ComfyUI stores them in a WebP file."""
    if not text:
        return b""
    exif = Image.Exif()
    next_tag = EXIF_MAKE
    for keyword, value in text.items():
        if keyword == "prompt":
            exif[EXIF_MODEL] = f"{keyword}:{value}"
        else:
            exif[next_tag] = f"{keyword}:{value}"
            next_tag -= 1
    return exif.tobytes()
