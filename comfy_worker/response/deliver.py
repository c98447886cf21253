"""Delivers a job's files: as base64 in the result, or as links to storage.

Whether a result fits through RunPod is calculated from the sizes of its files. Only files that fit
are read.
"""

from __future__ import annotations

import base64
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, InvalidValue, JobTimedOut, ResultTooLarge
from comfy_worker.request.schema import Output
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.s3 import S3Uploader
from comfy_worker.response.schema import Media
from comfy_worker.response.shrink import base64_size, shrink_steps

__all__ = ["ENVELOPE", "LESS_TEXT", "MB", "Delivery", "MediaByCategory", "result_limit"]

log = logging.getLogger(__name__)

MB = 1_000_000
# The sizes that RunPod documents: for the result of /runsync, for that of /run, and for one value
# of a stream.
SYNC_LIMIT, RUN_LIMIT, STREAM_LIMIT = 20 * MB, 10 * MB, MB
# Reserved for what the SDK adds to a result, and for warnings.
ENVELOPE = 10_000
# How much of the limit files may take that are streamed early: the result repeats them.
PARTIAL_SHARE = 0.25
# How long uploads that fail may take in all, and how many bytes of the files add a second to that.
STORAGE_LIMIT_S = 30.0
STORAGE_BYTES_PER_S = MB
# Time of the job that is kept for the files to come as base64: so much, but at most this share of
# what is left.
RESERVE_S, RESERVE_SHARE = 10.0, 1 / 3
# How many files an error lists, the largest first.
LISTED = 20

LESS_TEXT = "have the workflow show less text, or save it as a file"
"""What a client can do about a result that is too large without its files."""

MediaByCategory = dict[str, list[Media]]


def result_limit(job_id: str, limit_mb: float | None) -> int:
    """Return how many bytes of JSON RunPod accepts as a job's result.

    Args:
        job_id: RunPod's id. The ids of ``/runsync`` begin with ``sync-``.
        limit_mb: the limit of the settings; None: RunPod's own.
    """
    if limit_mb is not None:
        return int(limit_mb * MB)
    return SYNC_LIMIT if job_id.startswith("sync-") else RUN_LIMIT


class Delivery:
    """Delivers the files of one job.

    Args:
        job_id: RunPod's id; part of every key in the storage.
        output: the ``output`` of the job's input.
        storage: where files can be uploaded; None: no storage is configured.
        limit: how many bytes of JSON RunPod accepts from this job in all.
        streaming: whether the result is the last value of a stream.
        stop: when to give up; None: never.

    Attributes:
        warnings: sentences for the client about each decision that differs from the request.
        streamed: bytes of JSON that were streamed already; they count towards the limit.
        stop: when to give up.

    Raises:
        InvalidValue: the job requires storage, and none is configured.
    """

    def __init__(
        self,
        job_id: str,
        output: Output,
        storage: S3Uploader | None,
        limit: int,
        streaming: bool,
        stop: Deadline | None = None,
    ) -> None:
        if output.delivery == "s3" and storage is None:
            raise InvalidValue(
                "output.delivery cannot be s3, since no storage is configured; set the BUCKET_ "
                "variables, send s3Config, or ask for base64",
                [{"key": "output.delivery"}],
            )
        self.warnings: list[str] = []
        self.streamed = 0
        self._job_id = job_id
        self._storage = storage
        self._links_first = storage is not None and output.delivery != "base64"
        self._may_shrink = output.shrink
        self._limit = limit
        self._streaming = streaming
        self.stop = stop or Deadline()
        self._storage_left_s = STORAGE_LIMIT_S
        self._keys: dict[EncodedFile, str] = {}
        self._links: dict[EncodedFile, str] = {}

    def deliver(
        self,
        files: Sequence[EncodedFile],
        seed: int | None,
        json_of: Callable[[MediaByCategory], bytes],
    ) -> MediaByCategory:
        """Make files part of a result that fits through RunPod.

        Args:
            files: all files of the result. Files that :meth:`deliver_partial` uploaded are not
                uploaded again.
            seed: the job's.
            json_of: returns the JSON of the result that contains these media.

        Returns:
            The media by category (``images``, ``videos``, ``audio``, ``files``), in the order of
            the files.

        Raises:
            DeliveryFailed: the storage did not accept the files, and as base64 they do not fit.
            JobCancelled: ``stop`` was due during an upload.
            JobTimedOut: ``stop`` was due during an upload.
            ResultTooLarge: the files do not fit, and there is no storage.
        """
        remaining = self._limit - self.streamed - ENVELOPE
        room = min(remaining, STREAM_LIMIT - ENVELOPE) if self._streaming else remaining
        as_base64 = _Transport(files, seed)
        self._check_rest(as_base64.size(json_of, with_files=False), remaining)
        failures: list[DeliveryFailed] = []
        too_large = ""
        for description, transport in self._transports(files, seed, failures, room):
            size = transport.size(json_of)
            if size <= room:
                self._warn(failures, too_large, description)
                return transport.media()
            if not too_large:
                too_large = (
                    f"the result is {_mb(size)}, but RunPod accepts at most {_mb(room + ENVELOPE)}"
                )
        size = as_base64.size(json_of)
        if self._streaming and size <= remaining:
            warning = f"{too_large} of a stream's value; so only the job's status contains it"
            self.warnings.append(warning)
            return as_base64.media()
        largest = sorted(files, key=lambda file: file.size, reverse=True)[:LISTED]
        sizes = [{"filename": file.filename, "size_mb": file.size / MB} for file in largest]
        if failures:
            failure = failures[0]
            raise DeliveryFailed(f"{failure.sentence}; {too_large}", [*failure.details, *sizes])
        total = {"size_mb": size / MB, "limit_mb": (room + ENVELOPE) / MB, "files": len(files)}
        raise ResultTooLarge(
            f"{too_large}; configure storage (BUCKET_ENDPOINT_URL), allow output.shrink, "
            "or ask for smaller or fewer files",
            [total, *sizes],
        )

    def _check_rest(self, size: int, remaining: int) -> None:
        """Reject a result that is too large without its files: storage would not help."""
        if size > remaining:
            raise ResultTooLarge(
                f"the result is {_mb(size)} without its files, but RunPod accepts at most "
                f"{_mb(remaining + ENVELOPE)} in all; {LESS_TEXT}",
                [{"size_mb": size / MB, "limit_mb": (remaining + ENVELOPE) / MB}],
            )

    def _warn(self, failures: Sequence[DeliveryFailed], too_large: str, description: str) -> None:
        """Tell the client why the files are not delivered in the first way that was tried."""
        reasons = [failure.sentence for failure in failures]
        if too_large:
            reasons.append(too_large)
        if reasons:
            self.warnings.append(f"{' and '.join(reasons)}; so {description}")

    def deliver_partial(
        self,
        files: Sequence[EncodedFile],
        seed: int | None,
    ) -> MediaByCategory | None:
        """Deliver the files of one node before the job is over.

        Returns:
            As :meth:`deliver` does, or None if the files are too large to be sent twice.
        """
        if self._links_first:
            try:
                return _Transport(files, seed, self._upload(files)).media()
            except DeliveryFailed:  # the end of the job tries again, and reports the failure
                return None
        size = sum(base64_size(file.size) for file in files) + ENVELOPE
        if size > STREAM_LIMIT or self.streamed + size > self._limit * PARTIAL_SHARE:
            return None
        return _Transport(files, seed).media()

    def _transports(
        self,
        files: Sequence[EncodedFile],
        seed: int | None,
        failures: list[DeliveryFailed],
        room: int,
    ) -> Iterator[tuple[str, _Transport]]:
        """Yield the ways to send the files, best first, each with a description.

        Args:
            files: to send.
            seed: the job's.
            failures: gets the failures of the storage.
            room: how many bytes the result may take.
        """
        for by_link in (True, False) if self._links_first else (False, True):
            if not by_link:
                yield "the files came as base64", _Transport(files, seed)
            elif self._storage is not None:
                try:
                    links = self._upload(files)
                except DeliveryFailed as error:
                    failures.append(error)
                else:
                    yield "the files were put into storage", _Transport(files, seed, links)
        if self._may_shrink:
            for description, smaller in shrink_steps(files, room, self.stop):
                yield f"the pictures were made {description}", _Transport(smaller, seed)

    def _upload(self, files: Sequence[EncodedFile]) -> list[str]:
        assert self._storage is not None
        new = {self._key(file): file for file in files if file not in self._links}
        links = self._upload_in_time(self._storage, new)
        for key, file in new.items():
            self._links[file] = links[key]
        return [self._links[file] for file in files]

    def _upload_in_time(
        self, storage: S3Uploader, files: Mapping[str, EncodedFile]
    ) -> dict[str, str]:
        """Upload files by key, and return the links; leaves the job time to do without storage.

        Raises:
            DeliveryFailed: the storage did not accept the files, or took too long.
        """
        began = time.monotonic()
        left_s = self.stop.left_s
        size = sum(file.size for file in files.values())
        limit_s = min(
            self._storage_left_s + size / STORAGE_BYTES_PER_S,
            left_s - min(RESERVE_S, left_s * RESERVE_SHARE),
        )
        try:
            return storage.upload(files, self.stop.part(limit_s))
        except JobTimedOut as error:
            self.stop.check()
            self._take_storage_time(began)
            log.warning("upload took too long", extra={"action": "storage.failed"})
            raise DeliveryFailed(
                f"the storage at {storage.bucket.endpoint_url} did not accept the files for bucket "
                f"'{storage.bucket.name}' within {limit_s:.0f} s; check its settings and whether "
                "it can be reached, or ask for output.delivery base64",
                [{"problem": "the upload took too long", "limit_s": round(limit_s, 1)}],
            ) from error
        except DeliveryFailed:
            self._take_storage_time(began)
            raise

    def _take_storage_time(self, began: float) -> None:
        """Let later uploads of this job wait less: each output of a stream may fail anew."""
        elapsed_s = time.monotonic() - began
        self._storage_left_s = max(self._storage_left_s - elapsed_s, 0.0)

    def _key(self, file: EncodedFile) -> str:
        """Return the file's key.

        Files of different folders may have the same name, but not the same key.
        """
        assert self._storage is not None
        if file not in self._keys:
            path = PurePath(file.filename)
            key = self._storage.bucket.key(self._job_id, path.name)
            count = 1
            while key in self._keys.values():
                count += 1
                key = self._storage.bucket.key(self._job_id, f"{path.stem}-{count}{path.suffix}")
            self._keys[file] = key
        return self._keys[file]


@dataclass(frozen=True)
class _Transport:
    """One way to send files: as links, or as base64 if there are no links."""

    files: Sequence[EncodedFile]
    seed: int | None
    links: Sequence[str] | None = None

    def media(self) -> MediaByCategory:
        """Return the media of the result. Reads the files if they are sent as base64."""
        if self.links is not None:
            return _media(self.files, "s3_url", self.links, self.seed)
        data = (base64.b64encode(file.read()).decode("ascii") for file in self.files)
        return _media(self.files, "base64", data, self.seed)

    def size(self, json_of: Callable[[MediaByCategory], bytes], *, with_files: bool = True) -> int:
        """Return how many bytes the result's JSON takes, with or without the files.

        Reads no file.
        """
        if self.links is not None:
            return len(json_of(self.media()))
        # A response format may contain a file's base64 never, once or twice. So the JSON is made
        # with a mark in place of each file, and the marks in it are counted.
        mark = uuid.uuid4().hex
        marks = [f"{mark}{position:08}" for position in range(len(self.files))]
        text = json_of(_media(self.files, "base64", marks, self.seed))
        positions = re.findall(rf"{mark}(\d{{8}})".encode(), text)
        size = len(text) - len(positions) * (len(mark) + 8)
        if with_files:
            file_sizes = [base64_size(file.size) for file in self.files]
            size += sum(file_sizes[int(position)] for position in positions)
        return size


def _media(
    files: Sequence[EncodedFile], media_type: str, data: Iterable[str], seed: int | None
) -> MediaByCategory:
    by_category: MediaByCategory = {}
    filenames = _distinct([file.filename for file in files])
    for file, filename, text in zip(files, filenames, data, strict=True):
        media = Media(
            filename=filename,
            type=media_type,
            data=text,
            mime_type=file.mime_type,
            node_id=file.node_id,
            bytes=file.size,
            width=file.width,
            height=file.height,
            seed=seed,
        )
        by_category.setdefault(file.category, []).append(media)
    return by_category


def _distinct(filenames: Sequence[str]) -> list[str]:
    """Return the names, with a number added where a name comes again.

    Nodes may save files of one name in different folders. A client that saves the files of a result
    in one folder must not overwrite any.
    """
    found: dict[str, None] = {}
    counts: dict[str, int] = {}
    for filename in filenames:
        path = PurePath(filename)
        distinct = filename
        while distinct in found:
            counts[filename] = counts.get(filename, 1) + 1
            distinct = f"{path.stem}-{counts[filename]}{path.suffix}"
        found[distinct] = None
    return list(found)


def _mb(size: int) -> str:
    return f"{size / MB:.3g} MB"
