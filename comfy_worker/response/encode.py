"""Prepares output files for delivery: encodes raw pixels, and leaves other files unchanged."""

from __future__ import annotations

import math
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_worker.deadline import Deadline
from comfy_worker.errors import OutOfMemory
from comfy_worker.imaging.processes import ImageTask, TaskFault, image_processes, split_into_shares
from comfy_worker.logs import ContextThreadPool
from comfy_worker.request.schema import Output
from comfy_worker.response.collect import OutputFile, sniff

__all__ = ["SUFFIXES", "EncodedFile", "encode", "encoder_faults", "warnings_of"]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
# How many bytes of raw pixels are encoded at the same time. An encoder needs several bytes for each
# of them.
PARALLEL_BYTES = 1 << 29
# Up to so many bytes of raw pixels, the process that encodes them may serve the next job.
SMALL_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class EncodedFile:
    """A file that is ready for delivery.

    Attributes:
        filename: without folder.
        mime_type: found from the content.
        category: ``images``, ``videos``, ``audio`` or ``files``.
        node_id: the node that saved it.
        content: the file's bytes, or its path.
        width: of an image, in pixels.
        height: of an image, in pixels.
        warnings: sentences for the client.
    """

    filename: str
    mime_type: str
    category: str
    node_id: str
    content: bytes | Path = field(repr=False)
    width: int | None = None
    height: int | None = None
    warnings: tuple[str, ...] = ()

    def read(self) -> bytes:
        """Return the file's bytes."""
        if isinstance(self.content, bytes):
            return self.content
        return self.content.read_bytes()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size


def encode(
    files: Sequence[OutputFile],
    output: Output,
    png_metadata: Mapping[str, str],
    stop: Deadline | None = None,
) -> list[EncodedFile]:
    """Prepare files for delivery, several at the same time.

    Args:
        files: as :func:`comfy_worker.response.collect.find_files` returns them.
        output: the format that the job asks for.
        png_metadata: texts to store in each picture if ``output.metadata`` is set: ``prompt`` and
            others, as JSON.
        stop: when to give up; None: never.

    Returns:
        One entry per file, in the same order. An encoded picture is stored in the folder of its raw
        pixels.

    Raises:
        JobCancelled: ``stop`` was due.
        JobTimedOut: ``stop`` was due.
        OutOfMemory: an encoder ran out of memory.
    """
    if not files:
        return []
    batch = _Batch(files, output, dict(png_metadata) if output.metadata else {}, stop or Deadline())
    raw_sizes = [math.prod(file.shape) for file in files if file.shape is not None]
    shares = split_into_shares(len(files), PARALLEL_BYTES // max(raw_sizes, default=1))
    batch.encode_all(shares)
    return [batch.encoded[position] for position in range(len(files))]


@dataclass
class _Batch:
    """The files of one call of :func:`encode`.

    Attributes:
        encoded: the files that are ready, by their position in ``files``.
    """

    files: Sequence[OutputFile]
    output: Output
    png_metadata: dict[str, str]
    stop: Deadline
    encoded: dict[int, EncodedFile] = field(default_factory=dict)

    def encode_all(self, shares: Sequence[range]) -> None:
        """Encode every share in a process and, if there are several, a thread of its own."""
        if len(shares) == 1:
            self._encode_share(shares[0])
            return
        pool = ContextThreadPool(len(shares), thread_name_prefix="encode")
        try:
            futures = [pool.submit(self._encode_share, share) for share in shares]
            for future in futures:
                self.stop.wait_for(future)
        finally:
            pool.shutdown(cancel_futures=True)

    def _encode_share(self, positions: range) -> None:
        processes = image_processes()
        total = sum(_raw_bytes(self.files[position]) for position in positions)
        # What a process frees after large pictures may not go back to the system.
        is_small = (
            all(_is_raw(self.files[position]) for position in positions) and total <= SMALL_BYTES
        )
        new_task = processes.pixel_task if is_small else processes.task
        with encoder_faults(), new_task(self.stop) as task:
            task.run("prepare", {"text": self.png_metadata})
            for position in positions:
                self.encoded[position] = _encode(task, self.files[position], self.output)


@contextmanager
def encoder_faults() -> Iterator[None]:
    """Tell the client why an encoder ended: on our own pixels it dies only for lack of memory."""
    try:
        yield
    except TaskFault as fault:
        if fault.reason not in ("died", "memory"):
            raise
        raise OutOfMemory(
            "there was not enough memory to encode the pictures; ask for smaller or fewer pictures"
        ) from fault


def _encode(task: ImageTask, file: OutputFile, output: Output) -> EncodedFile:
    # A node that saves its own file under the name of raw pixels has overwritten them.
    if file.shape is None or not _is_raw(file):
        return _as_saved(task, file, output)
    target = _folder_for_encoded(file) / f"{file.path.name}.{uuid.uuid4().hex}.encoded"
    request = {
        "source": str(file.path),
        "target": str(target),
        "shape": file.shape,
        "format": output.format or "png",
        "quality": output.quality,
        "lossless": output.lossless,
    }
    answer, _ = task.run("encode", request)
    height, width, _channels = file.shape
    return EncodedFile(
        filename=file.path.with_suffix(SUFFIXES[answer["format"]]).name,
        mime_type=f"image/{answer['format']}",
        category="images",
        node_id=file.node_id,
        content=target,
        width=width,
        height=height,
        warnings=tuple(f"{file.path.name} {warning}" for warning in answer["warnings"]),
    )


def _folder_for_encoded(file: OutputFile) -> Path:
    """Choose the folder of the raw pixels, which is in memory, while it has room; else the disk."""
    in_memory = file.path.resolve().parent
    if shutil.disk_usage(in_memory).free > _raw_bytes(file):
        return in_memory
    return file.path.parent


def _is_raw(file: OutputFile) -> bool:
    """Return whether a file holds raw pixels and nothing else."""
    return file.shape is not None and file.path.stat().st_size == math.prod(file.shape)


def _raw_bytes(file: OutputFile) -> int:
    return 0 if file.shape is None else math.prod(file.shape)


def _as_saved(task: ImageTask, file: OutputFile, output: Output) -> EncodedFile:
    with file.path.open("rb") as opened:
        category, mime_type = sniff(opened.read(1024), file.path.suffix)
    width: int | None = None
    height: int | None = None
    warnings = []
    if category == "images":
        width, height = _measure(task, file.path)
        if output.format and mime_type != f"image/{output.format}":
            warnings.append(f"{file.path.name} is {mime_type}, as node {file.node_id} saved it")
    if not output.metadata:
        warnings.append(f"{file.path.name} may contain its workflow: node {file.node_id} saved it")
    return EncodedFile(
        filename=file.path.name,
        mime_type=mime_type,
        category=category,
        node_id=file.node_id,
        content=file.path,
        width=width,
        height=height,
        warnings=tuple(warnings),
    )


def _measure(task: ImageTask, path: Path) -> tuple[int | None, int | None]:
    """Return width and height of a picture; None if Pillow cannot read it."""
    answer: dict[str, Any]
    answer, _ = task.run("measure", {"source": str(path)})
    if answer["size"] is None:
        return None, None
    width, height = answer["size"]
    return width, height


def warnings_of(files: Iterable[EncodedFile]) -> list[str]:
    """Return the warnings of all files, each once, in order."""
    warnings: dict[str, None] = {}
    for file in files:
        warnings.update(dict.fromkeys(file.warnings))
    return list(warnings)
