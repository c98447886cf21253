"""Delivers a job's files: as base64 in the result, or as links to storage.

Whether a result fits through RunPod is calculated from the sizes of its files. Only files that fit
are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from comfy_common.text import megabytes
from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, InvalidValue, ResultTooLarge
from comfy_worker.request.schema import Output
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.s3 import S3Uploader
from comfy_worker.response.shrink import base64_size, shrink_steps
from comfy_worker.response.transport import MediaByCategory, Transport
from comfy_worker.response.uploads import JobUploads

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
# How many files an error lists, the largest first.
LISTED = 20

LESS_TEXT = "have the workflow show less text, or save it as a file"
"""What a client can do about a result that is too large without its files."""


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
        self.stop = stop or Deadline()
        self._uploads = None if storage is None else JobUploads(job_id, storage, self.stop)
        self._links_first = storage is not None and output.delivery != "base64"
        self._may_shrink = output.shrink
        self._limit = limit
        self._streaming = streaming

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
        as_base64 = Transport(files, seed)
        self._check_rest(as_base64.size(json_of, with_files=False), remaining)
        failures: list[DeliveryFailed] = []
        too_large = ""
        for description, transport in self._transports(files, seed, failures, room):
            size = transport.size(json_of)
            if size <= room:
                self._warn(failures, too_large, description)
                return transport.media()
            if not too_large:
                most = megabytes(room + ENVELOPE)
                too_large = f"the result is {megabytes(size)}, but RunPod accepts at most {most}"
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
                f"the result is {megabytes(size)} without its files, but RunPod accepts at most "
                f"{megabytes(remaining + ENVELOPE)} in all; {LESS_TEXT}",
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
        if self._uploads is not None and self._links_first:
            try:
                return Transport(files, seed, self._uploads.links(files)).media()
            except DeliveryFailed:  # the end of the job tries again, and reports the failure
                return None
        size = sum(base64_size(file.size) for file in files) + ENVELOPE
        if size > STREAM_LIMIT or self.streamed + size > self._limit * PARTIAL_SHARE:
            return None
        return Transport(files, seed).media()

    def _transports(
        self,
        files: Sequence[EncodedFile],
        seed: int | None,
        failures: list[DeliveryFailed],
        room: int,
    ) -> Iterator[tuple[str, Transport]]:
        """Yield the ways to send the files, best first, each with a description.

        Args:
            files: to send.
            seed: the job's.
            failures: gets the failures of the storage.
            room: how many bytes the result may take.
        """
        for by_link in (True, False) if self._links_first else (False, True):
            if not by_link:
                yield "the files came as base64", Transport(files, seed)
            elif self._uploads is not None:
                try:
                    links = self._uploads.links(files)
                except DeliveryFailed as error:
                    failures.append(error)
                else:
                    yield "the files were put into storage", Transport(files, seed, links)
        if self._may_shrink:
            for description, smaller in shrink_steps(files, room, self.stop):
                yield f"the pictures were made {description}", Transport(smaller, seed)
