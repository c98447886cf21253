"""Makes still pictures smaller until the result fits: lower quality first, then fewer pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from comfy_worker.deadline import Deadline
from comfy_worker.imaging.processes import ImageTask, image_processes
from comfy_worker.response.encode import SUFFIXES, EncodedFile, encoder_faults

__all__ = ["base64_size", "shrink_steps"]

# Quality, and the scale of each side.
STEPS = ((90, 1.0), (75, 1.0), (60, 1.0), (60, 0.75), (60, 0.5), (60, 0.25))


def shrink_steps(
    files: Sequence[EncodedFile],
    limit: int,
    stop: Deadline,
) -> Iterator[tuple[str, list[EncodedFile]]]:
    """Yield the files again and again, each time smaller. Only still pictures are changed.

    Args:
        files: ready for delivery.
        limit: how many bytes of base64 fit. A step whose files take more is not yielded.
        stop: when to give up.

    Yields:
        The format in words, and the files. A WebP stays one, transparency becomes WebP, all else
        JPEG.

    Raises:
        JobCancelled: ``stop`` was due.
        JobTimedOut: ``stop`` was due.
        OutOfMemory: an encoder ran out of memory.
    """
    others = [file for file in files if not _is_picture(file)]
    if len(others) == len(files) or sum(base64_size(file.size) for file in others) > limit:
        return
    for quality, scale in STEPS:
        with encoder_faults(), image_processes().task(stop) as task:
            smaller = _shrink_all(task, files, quality, scale, limit)
        if smaller is None:
            continue
        description = f"JPEG or WebP of quality {quality}"
        if scale != 1:
            description += f" and {scale:.0%} of their width and height"
        yield description, smaller


def base64_size(size: int) -> int:
    """Return how many characters of base64 encode so many bytes."""
    return (size + 2) // 3 * 4


def _is_picture(file: EncodedFile) -> bool:
    # Pictures that Pillow cannot read, such as SVG, have no width.
    return file.category == "images" and file.width is not None


def _shrink_all(
    task: ImageTask, files: Sequence[EncodedFile], quality: int, scale: float, limit: int
) -> list[EncodedFile] | None:
    """Return the files of one step, or None as soon as they are too large together."""
    smaller = []
    total = 0
    for file in files:
        if _is_picture(file):
            file = _shrink(task, file, quality, scale)
        smaller.append(file)
        total += base64_size(file.size)
        if total > limit:
            return None
    return smaller


def _shrink(task: ImageTask, file: EncodedFile, quality: int, scale: float) -> EncodedFile:
    request = {"quality": quality, "scale": scale, "source": None}
    if isinstance(file.content, Path):
        answer, blocks = task.run("shrink", {**request, "source": str(file.content)})
    else:
        answer, blocks = task.run("shrink", request, file.content)
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
