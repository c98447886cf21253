"""Receives a client's files: base64, data URI or URL become verified files in the job's own folder.

The type of a file is detected from its content, not from its name. The order of the steps matters:
all files are fetched, then all headers are read, then all limits are checked, and only then pixels
are decoded.
"""

from __future__ import annotations

import contextlib
import logging
import re
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from comfy_worker.deadline import TICK_S, Deadline
from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging.processes import ImageTask, TaskFault, image_processes, split_into_shares
from comfy_worker.input_limits import InputLimits
from comfy_worker.inputs.fetch import Fetcher
from comfy_worker.inputs.inline_source import decode_base64, is_url
from comfy_worker.logs import ContextThreadPool

__all__ = ["InputFiles"]

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

PARALLEL = 8
# All pictures of a job together may have so many times the pixels of the largest allowed picture.
MAX_PIXELS_FACTOR = 4
# How long the decoding of a file may take. A picture of 64 megapixels takes a few seconds.
DECODE_LIMIT_S = 60.0
# The signature and the head of the first chunk, then width and height.
PNG_SIZE = struct.Struct(">16xII")
# How much memory a decoder may take: a fixed amount, and bytes for each pixel of the largest
# allowed picture.
DECODER_MEMORY, BYTES_PER_PIXEL = 1 << 30, 32


@dataclass(frozen=True)
class _PendingFile:
    """A file that was sent and is not stored yet.

    Attributes:
        key: its key in the input.
        content: ``picture``, ``mask``, ``merged`` (a picture and its mask, which become one file)
            or ``any``.
        sources: base64, a data URI or a URL, by key in the input; two of them for ``merged``.
    """

    key: str
    content: str
    sources: Mapping[str, str]


@dataclass(frozen=True)
class _DecoderProcess:
    """A process that decodes some of the files.

    Attributes:
        task: the process.
        files: the files, each with the path that it is stored under, without suffix.
    """

    task: ImageTask
    files: Sequence[tuple[_PendingFile, Path]]

    def probe(self, data: Mapping[str, bytes], max_pixels: int) -> int:
        """Send the files to the process, read their headers, and count their pixels."""
        pixels = 0
        for file, _target in self.files:
            request = {"key": file.key, "content": file.content, "max_pixels": max_pixels}
            blocks = [data[key] for key in file.sources]
            with _decoder_faults(file.key):
                answer, _ = self.task.run("probe", request, *blocks, limit_s=DECODE_LIMIT_S)
            pixels += int(answer["pixels"])
        return pixels

    def store(self) -> dict[str, str]:
        """Decode the files, and return their names by key in the input."""
        names = {}
        for index, (file, target) in enumerate(self.files):
            request = {"index": index, "target": str(target)}
            with _decoder_faults(file.key):
                answer, _ = self.task.run("store", request, limit_s=DECODE_LIMIT_S)
            names[file.key] = f"{target.parent.name}/{target.name}{answer['suffix']}"
        return names


class _Attempt(Deadline):
    """The end of the work on some files: when the job ends, or when one of the files has failed.

    Args:
        job: when the job must end.
    """

    def __init__(self, job: Deadline) -> None:
        self._failed = threading.Event()
        super().__init__(self._failed)
        self._job = job

    @property
    def is_due(self) -> bool:
        """Whether the work must end now."""
        return self._failed.is_set() or self._job.is_due

    def check(self) -> None:
        """Raise if the work must end now: the job's own error, if the job must end."""
        self._job.check()
        super().check()

    def run_all(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """Call ``work`` with each item, several at the same time.

        A failure ends the work on all others.
        """
        if len(items) == 1:
            return [work(items[0])]
        pool = ContextThreadPool(PARALLEL, thread_name_prefix="input")
        try:
            futures = [pool.submit(work, item) for item in items]
            while wait(futures, timeout=TICK_S, return_when=FIRST_EXCEPTION).not_done:
                self.check()
                if any(future.done() and future.exception() for future in futures):
                    break
            # Raise the failure, which ended the loop, before waiting for the others.
            for future in futures:
                if future.done():
                    future.result()
            return [future.result() for future in futures]
        except BaseException:
            self._failed.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


class InputFiles:
    """The files that a client sent with one job.

    Args:
        folder: the job's own folder below ComfyUI's input folder; made when the first file is
            stored.
        limits: how many files there may be, how large they may be, and which hosts URLs may reach.
        stop: when to give up; None: never.

    Attributes:
        names: the name that ``LoadImage`` has for each file, ``<folder>/<name>``, by key in the
            input.
    """

    def __init__(self, folder: Path, limits: InputLimits, stop: Deadline | None = None) -> None:
        self.names: dict[str, str] = {}
        self._folder = folder
        self._limits = limits
        self._stop = stop or Deadline()
        self._pixels = 0
        # Decreases only during fetches: a model that is downloaded between two files must not use
        # it up.
        self._fetch_time_left_s = limits.timeout_s

    def add_pictures(self, sources: Mapping[str, str], *, merged: bool = False) -> None:
        """Receive pictures. The one under ``mask`` is stored with the mask in every channel.

        Args:
            sources: base64, a data URI or a URL, by key in the input.
            merged: whether to store ``image`` and ``mask`` as one file, with the mask as its alpha
                channel. Both keys then name this file.

        Raises:
            InvalidMedia: a file cannot be fetched, is not a picture or is too large; or there are
                too many.
        """
        files = []
        pair = {}
        for key, source in sources.items():
            if merged and key in ("image", "mask"):
                pair[key] = source
            else:
                content = "mask" if key == "mask" else "picture"
                files.append(_PendingFile(key, content, {key: source}))
        if pair:
            files.append(_PendingFile("image", "merged", pair))
        self._receive(files)
        if pair:
            self.names["mask"] = self.names["image"]

    def add_any(self, sources: Mapping[str, str], pictures: Collection[str] = ()) -> None:
        """Receive pictures, videos and sounds.

        Args:
            sources: base64, a data URI or a URL, by key in the input.
            pictures: the keys of files that must be pictures.

        Raises:
            InvalidMedia: as :meth:`add_pictures`.
        """
        files = []
        for key, source in sources.items():
            content = "picture" if key in pictures else "any"
            files.append(_PendingFile(key, content, {key: source}))
        self._receive(files)

    def picture_size(self, name: str) -> tuple[int, int] | None:
        """Return the width and the height of a stored picture, in pixels.

        Args:
            name: as ``LoadImage`` has it.

        Returns:
            None for a name that is not that of a picture of this job.
        """
        if name not in self.names.values() or not name.endswith(".png"):
            return None
        with (self._folder / Path(name).name).open("rb") as file:
            width, height = PNG_SIZE.unpack(file.read(PNG_SIZE.size))
        return width, height

    def _receive(self, files: Sequence[_PendingFile]) -> None:
        """Fetch, verify and store files, except those that are stored already."""
        new = [file for file in files if file.key not in self.names]
        count = len(self.names) + sum(len(file.sources) for file in new)
        limit = self._limits.max_files
        if count > limit:
            raise InvalidMedia(f"the input holds {count} files; send at most {limit}")
        if not new:
            return
        attempt = _Attempt(self._stop)
        max_pixels = self._limits.max_pixels
        data = self._fetch_all(attempt, new)
        with self._processes(attempt, new) as processes:
            counts = attempt.run_all(processes, lambda process: process.probe(data, max_pixels))
            data.clear()  # the processes have their own copy
            pixels = sum(counts)
            self._check_total(pixels)
            self._folder.mkdir(exist_ok=True)
            if pixels <= max_pixels:
                names = attempt.run_all(processes, _DecoderProcess.store)
            else:  # one after the other, so that the memory for their pixels does not add up
                names = [process.store() for process in processes]
        for names_of_process in names:
            self.names |= names_of_process

    def _check_total(self, pixels: int) -> None:
        self._pixels += pixels
        limit = MAX_PIXELS_FACTOR * self._limits.max_pixels
        if self._pixels > limit:
            problem = f"the pictures have too many pixels together; send at most {limit:,}"
            raise InvalidMedia(problem)

    def _fetch_all(self, attempt: _Attempt, files: Sequence[_PendingFile]) -> dict[str, bytes]:
        """Return the bytes of each file by its key in the input.

        Several URLs are fetched at the same time.
        """
        sources: dict[str, str] = {}
        for file in files:
            sources.update(file.sources)
        started = time.monotonic()
        fetcher = Fetcher(
            max_mb=self._limits.max_mb,
            deadline=started + self._fetch_time_left_s,
            allowed_hosts=self._limits.allowed_hosts,
            allow_private=self._limits.allow_private,
            stop=attempt,
        )

        def read(key: str) -> bytes:
            return self._read_source(fetcher, key, sources[key])

        try:
            return dict(zip(sources, attempt.run_all(list(sources), read), strict=True))
        finally:
            elapsed_s = time.monotonic() - started
            self._fetch_time_left_s = max(self._fetch_time_left_s - elapsed_s, 0)

    def _read_source(self, fetcher: Fetcher, key: str, source: str) -> bytes:
        if is_url(source):
            return fetcher.fetch(key, source)
        if len(source) * 3 / 4 > self._limits.max_mb * 1_000_000:
            raise InvalidMedia(f"{key} is too large; send at most {self._limits.max_mb:g} MB")
        return decode_base64(key, source)

    @contextmanager
    def _processes(
        self,
        attempt: _Attempt,
        files: Sequence[_PendingFile],
    ) -> Iterator[list[_DecoderProcess]]:
        """Start processes that decode, each with its share of the files.

        They end when the block is left.
        """
        memory = DECODER_MEMORY + BYTES_PER_PIXEL * self._limits.max_pixels
        first = len(self.names)
        processes = []
        with contextlib.ExitStack() as stack:
            for share in split_into_shares(len(files)):
                task = stack.enter_context(image_processes().task(attempt, memory))
                pending = []
                for index in share:
                    target = self._folder / f"{first + index}_{_slug(files[index].key)}"
                    pending.append((files[index], target))
                processes.append(_DecoderProcess(task, pending))
            yield processes


@contextmanager
def _decoder_faults(key: str) -> Iterator[None]:
    """Tell a client why its file could not be decoded."""
    try:
        yield
    except TaskFault as fault:
        log.debug("%s: %s", key, fault, extra={"action": "input.fault"})
        sentences = {
            "memory": "takes too much memory to decode; send it as a plain PNG or JPEG, or smaller",
            "time": f"takes longer than {DECODE_LIMIT_S:g} s to decode; send a plain PNG or JPEG",
            "died": "made its decoder crash; send it as a plain PNG or JPEG",
        }
        damaged = "is a damaged or incomplete picture; send the complete file"
        raise InvalidMedia(f"{key} {sentences.get(fault.reason, damaged)}") from None


def _slug(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", key)[:40]
