"""Makes still pictures smaller, so that a result fits: lower quality first, then fewer pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from comfy_worker.deadline import Stop
from comfy_worker.image_processes import ImageTask, image_processes
from comfy_worker.response.encode import SUFFIXES, EncodedFile, encoding

__all__ = ["base64_size", "shrunk"]

# Quality, and by how much each side is scaled.
STEPS = ((90, 1.0), (75, 1.0), (60, 1.0), (60, 0.75), (60, 0.5), (60, 0.25))


def shrunk(files: Sequence[EncodedFile], room: int, stop: Stop) -> Iterator[tuple[str, list[EncodedFile]]]:
    """The files, smaller and smaller; what is no still picture stays as it is.

    Args:
        files: ready to be delivered.
        room: bytes of base64 that fit; a step is left once its files have more together.
        stop: when to give up.

    Yields:
        What was done, in words, and the files: WebP where a picture is one or has transparency, else JPEG.

    Raises:
        JobCancelled: ``stop`` was due.
        JobTimedOut: ``stop`` was due.
        OutOfMemory: the host's memory did not suffice.
    """
    fixed = sum(base64_size(file.size) for file in files if not _is_picture(file))
    if fixed > room or not any(_is_picture(file) for file in files):
        return
    for quality, scale in STEPS:
        with encoding(), image_processes().task(stop) as task:
            smaller = _step(task, files, quality, scale, room)
        if smaller is not None:
            size = "" if scale == 1 else f" and {scale:.0%} of their width and height"
            yield f"JPEG or WebP of quality {quality}{size}", smaller


def base64_size(size: int) -> int:
    """How many characters of base64 so many bytes take."""
    return (size + 2) // 3 * 4


def _is_picture(file: EncodedFile) -> bool:
    return file.kind == "images" and file.width is not None


def _step(
    task: ImageTask, files: Sequence[EncodedFile], quality: int, scale: float, room: int
) -> list[EncodedFile] | None:
    """The files of one step; None where they are too large together."""
    smaller, size = [], 0
    for file in files:
        done = _smaller(task, file, quality, scale) if _is_picture(file) else file
        smaller.append(done)
        size += base64_size(done.size)
        if size > room:
            return None
    return smaller


def _smaller(task: ImageTask, file: EncodedFile, quality: int, scale: float) -> EncodedFile:
    request = {"quality": quality, "scale": scale, "source": None}
    if isinstance(file.content, Path):
        answer, blocks = task.ask("shrink", {**request, "source": str(file.content)})
    else:
        answer, blocks = task.ask("shrink", request, file.content)
    if not answer["still"]:
        return file
    width, height = answer["size"]
    return dataclasses.replace(
        file,
        filename=str(PurePath(file.filename).with_suffix(SUFFIXES[answer["format"]])),
        mime_type=f"image/{answer['format']}",
        content=blocks[0],
        width=width,
        height=height,
    )
