"""Takes in the files that a client sent: base64, data URI or URL -> verified files in the job's own folder.

The type of a file is decided by its content, never by its name. Order counts: all files arrive, then all headers
are read, then all limits are checked, and only then pixels are decoded.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import InvalidMedia
from comfy_worker.image_processes import ImageTask, TaskFault, image_processes, split
from comfy_worker.inputs.fetch import Fetcher
from comfy_worker.logs import ContextThreadPool
from comfy_worker.settings import Settings

__all__ = ["InputFiles", "decode", "is_in_place"]

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
DATA_URI = re.compile(r"data:[^,]{0,200}?;base64,", re.ASCII)
PARALLEL = 8
# How many times the pixels of the largest picture all pictures of a job may have.
TOGETHER = 4
# How long a file may take to be decoded; one of 64 megapixels takes seconds.
DECODE_LIMIT_S = 60.0
# How much memory a decoder may take: some, and so many bytes for each pixel of the largest picture.
DECODER_MEMORY, BYTES_PER_PIXEL = 1 << 30, 32


@dataclass(frozen=True)
class _Sent:
    """A file that is not there yet.

    Attributes:
        key: where it stood in the input.
        content: ``picture``, ``mask``, ``merged`` (a picture and its mask, which become one file) or ``any``.
        values: base64, a data URI or a URL, by where it stood.
    """

    key: str
    content: str
    values: Mapping[str, str]


@dataclass
class _Process:
    """A decoding process and the files that it reads, as positions in a list of them."""

    task: ImageTask
    positions: range


class _Attempt(Stop):
    """Taking in some files: ends with the job, or once one of the files came to nothing.

    Args:
        job: when the job must end.
    """

    def __init__(self, job: Stop) -> None:
        self._failed = threading.Event()
        super().__init__(self._failed)
        self._job = job

    @property
    def is_due(self) -> bool:
        """Whether the work must end now."""
        return self._failed.is_set() or self._job.is_due

    def check(self) -> None:
        """Go on, or raise as the job's own does."""
        self._job.check()
        super().check()

    def all(self, things: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """Have ``work`` done with each thing, several at once; a failure ends the work on the others."""
        if len(things) == 1:
            return [work(things[0])]
        pool = ContextThreadPool(PARALLEL, thread_name_prefix="input")
        try:
            futures = [pool.submit(work, thing) for thing in things]
            while wait(futures, timeout=TICK_S, return_when=FIRST_EXCEPTION).not_done:
                self.check()
                if any(future.done() and future.exception() for future in futures):
                    break
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
        self._pixels = 0
        # Runs only while files are fetched: between them models may be, which takes as long as it takes.
        self._fetch_left_s = settings.input_timeout_s

    def add_pictures(self, sent: Mapping[str, str], *, merged: bool = False) -> None:
        """Take in pictures; what stands under ``mask`` is made a file that reads alike from any channel.

        Args:
            sent: by where it stood in the input: base64, a data URI or a URL.
            merged: whether ``image`` and ``mask`` become one file, named under both, whose alpha is the mask.

        Raises:
            InvalidMedia: one cannot be had, is no picture, is too large; or they are too many.
        """
        pair = {key: value for key, value in sent.items() if merged and key in ("image", "mask")}
        files = [
            _Sent(key, "mask" if key == "mask" else "picture", {key: value})
            for key, value in sent.items()
            if key not in pair
        ]
        if pair:
            files.append(_Sent("image", "merged", pair))
        self._take(files)
        if pair:
            self.names["mask"] = self.names["image"]

    def add_any(self, sent: Mapping[str, str]) -> None:
        """Take in pictures, videos and sounds, each told by its content; arguments and errors as above."""
        self._take([_Sent(key, "any", {key: value}) for key, value in sent.items()])

    def _take(self, files: Sequence[_Sent]) -> None:
        """Take in the files that are not there yet."""
        new = [file for file in files if file.key not in self.names]
        count = len(self.names) + sum(len(file.values) for file in new)
        if count > self._settings.max_inputs:
            raise InvalidMedia(f"the input holds {count} files; send at most {self._settings.max_inputs}")
        if not new:
            return
        attempt = _Attempt(self._stop)
        values = {key: value for file in new for key, value in file.values.items()}
        data = self._fetched(attempt, values)
        with self._processes(attempt, len(new)) as processes:

            def probe(process: _Process) -> list[int]:
                return [self._probe(process.task, new[at], data) for at in process.positions]

            pixels = sum(sum(share) for share in attempt.all(processes, probe))
            data.clear()  # the processes have it
            self._check_together(pixels)
            self._folder.mkdir(exist_ok=True)
            first = len(self.names)
            targets = [self._folder / f"{first + at}_{_slug(file.key)}" for at, file in enumerate(new)]
            suffixes: dict[int, str] = {}

            def store(process: _Process) -> None:
                for index, at in enumerate(process.positions):
                    suffixes[at] = self._store(process.task, new[at].key, index, targets[at])

            if pixels <= self._settings.max_input_pixels:
                attempt.all(processes, store)
            else:  # one after the other, so that their pixels do not add up
                for process in processes:
                    store(process)
        for at, file in enumerate(new):
            self.names[file.key] = f"{self._folder.name}/{targets[at].name}{suffixes[at]}"

    def _check_together(self, pixels: int) -> None:
        self._pixels += pixels
        limit = TOGETHER * self._settings.max_input_pixels
        if self._pixels > limit:
            raise InvalidMedia(f"the pictures have too many pixels together; send at most {limit:,}")

    def _fetched(self, attempt: _Attempt, sent: Mapping[str, str]) -> dict[str, bytes]:
        """The bytes of each file, by where it stood; several are fetched at once."""
        began = time.monotonic()
        fetcher = Fetcher(
            self._settings.max_input_mb,
            began + self._fetch_left_s,
            self._settings.allowed_url_hosts,
            self._settings.allow_private_urls,
            stop=attempt,
        )
        try:
            data = attempt.all(list(sent), lambda key: self._bytes(fetcher, key, sent[key]))
            return dict(zip(sent, data, strict=True))
        finally:
            self._fetch_left_s = max(self._fetch_left_s - (time.monotonic() - began), 0)

    def _bytes(self, fetcher: Fetcher, key: str, value: str) -> bytes:
        if URL.match(value):
            return fetcher.fetch(key, value)
        if len(value) * 3 / 4 > self._settings.max_input_mb * 1_000_000:
            raise InvalidMedia(f"{key} is too large; send at most {self._settings.max_input_mb:g} MB")
        return decode(key, value)

    @contextmanager
    def _processes(self, attempt: _Attempt, count: int) -> Iterator[list[_Process]]:
        """Processes that decode, each with its share of so many files; they end with the block."""
        memory = DECODER_MEMORY + BYTES_PER_PIXEL * self._settings.max_input_pixels
        with contextlib.ExitStack() as stack:
            yield [
                _Process(stack.enter_context(image_processes().task(attempt, memory)), positions)
                for positions in split(count)
            ]

    def _probe(self, task: ImageTask, file: _Sent, data: Mapping[str, bytes]) -> int:
        request = {"key": file.key, "content": file.content, "max_pixels": self._settings.max_input_pixels}
        with _told_of(file.key):
            answer, _ = task.ask("probe", request, *(data[key] for key in file.values), limit_s=DECODE_LIMIT_S)
        return int(answer["pixels"])

    def _store(self, task: ImageTask, key: str, index: int, target: Path) -> str:
        with _told_of(key):
            answer, _ = task.ask("store", {"index": index, "target": str(target)}, limit_s=DECODE_LIMIT_S)
        return str(answer["suffix"])


@contextmanager
def _told_of(key: str) -> Iterator[None]:
    """Tell a client why its file came to nothing."""
    try:
        yield
    except TaskFault as fault:
        log.debug("%s: %s", key, fault, extra={"action": "input.fault"})
        sentences = {
            "memory": f"{key} takes too much memory to decode; send it as a plain PNG or JPEG, or smaller",
            "time": f"{key} takes longer than {DECODE_LIMIT_S:g} s to decode; send it as a plain PNG or JPEG",
            "died": f"{key} made its decoder end; send it as a plain PNG or JPEG",
        }
        broken = f"{key} is a picture that is broken or cut short; send the whole file"
        raise InvalidMedia(sentences.get(fault.reason, broken)) from None


def _slug(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", key)[:40]


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
