"""Makes still pictures smaller, so that a result fits: lower quality first, then fewer pixels."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from PIL import Image

from comfy_worker.response.encode import EncodedFile

__all__ = ["shrunk"]

# Quality, and by how much each side is scaled.
STEPS = ((90, 1.0), (75, 1.0), (60, 1.0), (60, 0.75), (60, 0.5), (60, 0.25))


def shrunk(files: Sequence[EncodedFile]) -> Iterator[tuple[str, list[EncodedFile]]]:
    """The files, smaller and smaller; what is no still picture stays as it is.

    Args:
        files: ready to be delivered.

    Yields:
        What was done, in words, and the files: WebP where a picture is one or has transparency, else JPEG.
    """
    pictures = {file: picture for file in files if (picture := _still(file)) is not None}
    if not pictures:
        return
    for quality, scale in STEPS:
        size = "" if scale == 1 else f" and {scale:.0%} of their width and height"
        yield (
            f"JPEG or WebP of quality {quality}{size}",
            [_smaller(file, pictures[file], quality, scale) if file in pictures else file for file in files],
        )


def _still(file: EncodedFile) -> Image.Image | None:
    if file.kind != "images" or file.width is None:
        return None
    with Image.open(io.BytesIO(file.read())) as opened:
        if getattr(opened, "n_frames", 1) > 1:
            return None
        picture: Image.Image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    return picture


def _smaller(file: EncodedFile, picture: Image.Image, quality: int, scale: float) -> EncodedFile:
    form = "webp" if file.mime_type == "image/webp" or picture.mode == "RGBA" else "jpeg"
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    scaled = picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    scaled.save(target, format=form, quality=quality)
    return dataclasses.replace(
        file,
        filename=str(PurePath(file.filename).with_suffix(".webp" if form == "webp" else ".jpg")),
        mime_type=f"image/{form}",
        content=target.getvalue(),
        width=size[0],
        height=size[1],
    )
