"""Output files -> what is sent of them: raw pictures in the format asked for, every other file as it was saved."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from comfy_worker.deadline import Stop
from comfy_worker.errors import OutOfMemory
from comfy_worker.image_processes import ImageTask, TaskFault, image_processes, split
from comfy_worker.logs import ContextThreadPool
from comfy_worker.request.schema import Output
from comfy_worker.response.collect import OutputFile, sniff

__all__ = ["EncodedFile", "encode", "encoding", "warnings_of"]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
# How many bytes of raw pixels are encoded at the same time; each takes several in an encoder.
AT_ONCE_BYTES = 1 << 29


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


def encode(
    files: Sequence[OutputFile], output: Output, text: Mapping[str, str], stop: Stop | None = None
) -> list[EncodedFile]:
    """Make files ready to be delivered, several at once.

    Args:
        files: as :func:`find_files` gives them.
        output: the format asked for.
        text: what is kept in a picture where ``output.metadata`` asks for it: ``prompt`` and the like, as JSON.
        stop: when to give up; None: never.

    Returns:
        One for each, in the order given; what is encoded anew lies in a file beside the raw pixels.

    Raises:
        JobCancelled: ``stop`` was due.
        JobTimedOut: ``stop`` was due.
        OutOfMemory: an encoder was ended for want of memory.
    """
    if not files:
        return []
    stop = stop or Stop()
    kept = dict(text) if output.metadata else {}
    ready: dict[int, EncodedFile] = {}

    def share(positions: range) -> None:
        with encoding(), image_processes().task(stop) as task:
            task.ask("prepare", {"text": kept})
            for position in positions:
                ready[position] = _encode(task, files[position], output)

    largest = max((math.prod(file.shape) for file in files if file.shape is not None), default=1)
    shares = split(len(files), AT_ONCE_BYTES // largest)
    if len(shares) == 1:
        share(shares[0])
    else:
        pool = ContextThreadPool(len(shares), thread_name_prefix="encode")
        try:
            for future in [pool.submit(share, positions) for positions in shares]:
                stop.wait_for(future)
        finally:
            pool.shutdown(cancel_futures=True)
    return [ready[position] for position in range(len(files))]


@contextmanager
def encoding() -> Iterator[None]:
    """Say why an encoder did not come to an end: an encoder of our own pixels dies for want of memory."""
    try:
        yield
    except TaskFault as fault:
        if fault.reason not in ("died", "memory"):
            raise
        raise OutOfMemory(
            "the host's memory did not suffice to encode the pictures; ask for smaller or fewer ones"
        ) from fault


def _encode(task: ImageTask, file: OutputFile, output: Output) -> EncodedFile:
    if file.shape is None or file.path.stat().st_size != math.prod(file.shape):
        return _as_saved(task, file, output)
    target = file.path.with_name(f"{file.path.name}.{uuid.uuid4().hex}.encoded")
    request = {
        "source": str(file.path),
        "target": str(target),
        "shape": file.shape,
        "format": output.format or "png",
        "quality": output.quality,
        "lossless": output.lossless,
    }
    answer, _ = task.ask("encode", request)
    height, width, _channels = file.shape
    return EncodedFile(
        file.path.with_suffix(SUFFIXES[answer["format"]]).name,
        f"image/{answer['format']}",
        "images",
        file.node_id,
        target,
        width,
        height,
        tuple(f"{file.path.name} {warning}" for warning in answer["warnings"]),
    )


def _as_saved(task: ImageTask, file: OutputFile, output: Output) -> EncodedFile:
    with file.path.open("rb") as opened:
        kind, mime_type = sniff(opened.read(1024))
    warnings = []
    width = height = None
    if kind == "images":
        answer, _ = task.ask("measure", {"source": str(file.path)})
        width, height = answer["size"] or (None, None)
        if output.format and mime_type != f"image/{output.format}":
            warnings.append(f"{file.path.name} is {mime_type}, as node {file.node_id} saved it")
    if not output.metadata:
        warnings.append(f"{file.path.name} may hold its graph: node {file.node_id} saved it so")
    return EncodedFile(file.path.name, mime_type, kind, file.node_id, file.path, width, height, tuple(warnings))


def warnings_of(encoded: Iterable[EncodedFile]) -> list[str]:
    """Every warning once, in order."""
    return list(dict.fromkeys(warning for one in encoded for warning in one.warnings))
