"""Brings a job's files to its client: as base64 in the result, or by links into storage.

Whether a result fits through RunPod is known from the sizes of its files; only what fits is read and encoded.
"""

from __future__ import annotations

import base64
import itertools
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from comfy_worker.deadline import Stop
from comfy_worker.errors import DeliveryFailed, InvalidValue, ResultTooLarge
from comfy_worker.request.schema import Output
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.s3 import Storage
from comfy_worker.response.schema import Media
from comfy_worker.response.shrink import base64_size, shrunk

__all__ = ["ENVELOPE", "MB", "Delivery", "result_limit"]

MB = 1_000_000
# What RunPod documents for the results of /runsync, of /run, and for one value of a stream.
SYNC_LIMIT, RUN_LIMIT, STREAM_LIMIT = 20 * MB, 10 * MB, MB
# Left for what the SDK puts around and into a result, and for its warnings.
ENVELOPE = 10_000
# How much of the limit may go to files that are streamed first, and are in the result again.
EARLY_SHARE = 0.25
# How many files an error lists, the largest first.
LISTED = 20

MediaByKind = dict[str, list[Media]]


def result_limit(job_id: str, limit_mb: float | None) -> int:
    """How many bytes of JSON RunPod takes as a job's result.

    Args:
        job_id: RunPod's; those of ``/runsync`` begin with ``sync-``.
        limit_mb: what the settings say instead.
    """
    if limit_mb is not None:
        return int(limit_mb * MB)
    return SYNC_LIMIT if job_id.startswith("sync-") else RUN_LIMIT


class Delivery:
    """The way that the files of one job take.

    Args:
        job_id: RunPod's; part of every key.
        asked: what the job wants.
        storage: where files can be put; None: nowhere.
        limit: bytes of JSON that RunPod takes of this job in all.
        streaming: whether the result is the last value of a stream.
        stop: when to give up; None: never.

    Attributes:
        warnings: what was done otherwise than asked.
        streamed: bytes of JSON that the job's stream already holds; they count too.
        stop: when to give up.

    Raises:
        InvalidValue: storage is asked for, and there is none.
    """

    def __init__(
        self,
        job_id: str,
        asked: Output,
        storage: Storage | None,
        limit: int,
        streaming: bool,
        stop: Stop | None = None,
    ) -> None:
        if asked.delivery == "s3" and storage is None:
            raise InvalidValue(
                "output.delivery cannot be s3, since no storage is configured; set the BUCKET_ variables, send "
                "s3Config, or ask for base64",
                [{"key": "output.delivery"}],
            )
        self.warnings: list[str] = []
        self.streamed = 0
        self._job_id = job_id
        self._storage = storage
        self._links_first = storage is not None and asked.delivery != "base64"
        self._may_shrink = asked.shrink
        self._limit = limit
        self._streaming = streaming
        self.stop = stop or Stop()
        self._keys: dict[EncodedFile, str] = {}
        self._links: dict[EncodedFile, str] = {}

    def deliver(
        self, files: Sequence[EncodedFile], seed: int | None, json_of: Callable[[MediaByKind], bytes]
    ) -> MediaByKind:
        """Make files part of a result that fits through RunPod.

        Args:
            files: all files of the result; those that :meth:`early` uploaded are not uploaded again.
            seed: the job's.
            json_of: the result with these media in it, as it is posted.

        Returns:
            By kind (``images``, ``videos``, ``audio``, ``files``), in the order given.

        Raises:
            DeliveryFailed: the storage did not take them, and as base64 they do not fit.
            JobCancelled: ``stop`` was due while they were on their way.
            JobTimedOut: ``stop`` was due while they were on their way.
            ResultTooLarge: they do not fit, and there is no storage.
        """
        left = self._limit - self.streamed - ENVELOPE
        room = min(left, STREAM_LIMIT - ENVELOPE) if self._streaming else left
        plain = _Way(files, seed)
        self._check_rest(plain.size(json_of, with_files=False), left)
        failures: list[DeliveryFailed] = []
        too_large = ""
        for how, way in self._ways(files, seed, failures, room):
            size = way.size(json_of)
            if size <= room:
                reasons = [failure.sentence for failure in failures] + [too_large] * bool(too_large)
                self.warnings += [f"{' and '.join(reasons)}; so {how}"] if reasons else []
                return way.media()
            too_large = too_large or f"the result takes {_mb(size)} and RunPod takes {_mb(room + ENVELOPE)}"
        size = plain.size(json_of)
        if self._streaming and size <= left:
            self.warnings.append(f"{too_large} of a stream's value; so only the job's status has it")
            return plain.media()
        largest = sorted(files, key=lambda file: file.size, reverse=True)[:LISTED]
        sizes = [{"filename": file.filename, "size_mb": file.size / MB} for file in largest]
        if failures:
            raise DeliveryFailed(f"{failures[0].sentence}; {too_large}", [*failures[0].details, *sizes])
        raise ResultTooLarge(
            f"{too_large}; configure storage (BUCKET_ENDPOINT_URL), allow output.shrink, or ask for smaller or "
            "fewer files",
            [{"size_mb": size / MB, "limit_mb": (room + ENVELOPE) / MB, "files": len(files)}, *sizes],
        )

    def _check_rest(self, size: int, left: int) -> None:
        """Refuse a result that is too large without its files: nothing that is done with files helps."""
        if size > left:
            raise ResultTooLarge(
                f"the result takes {_mb(size)} without its files, and RunPod takes {_mb(left + ENVELOPE)} in all; "
                "have the workflow show less text, or save it as a file",
                [{"size_mb": size / MB, "limit_mb": (left + ENVELOPE) / MB}],
            )

    def early(self, files: Sequence[EncodedFile], seed: int | None) -> MediaByKind | None:
        """The files of one node, before the job is over.

        Returns:
            As :meth:`deliver` does, or None where they are too large to be streamed on top of the result.
        """
        if self._links_first:
            try:
                return _Way(files, seed, self._upload(files)).media()
            except DeliveryFailed:  # tried again at the end, and told there
                return None
        size = sum(base64_size(file.size) for file in files) + ENVELOPE
        if size > STREAM_LIMIT or self.streamed + size > self._limit * EARLY_SHARE:
            return None
        return _Way(files, seed).media()

    def _ways(
        self, files: Sequence[EncodedFile], seed: int | None, failures: list[DeliveryFailed], room: int
    ) -> Iterator[tuple[str, _Way]]:
        """What can be done with the files, best first, and in words; what the storage refused is noted."""
        for by_link in (True, False) if self._links_first else (False, True):
            if not by_link:
                yield "the files came as base64", _Way(files, seed)
            elif self._storage is not None:
                try:
                    links = self._upload(files)
                except DeliveryFailed as error:
                    failures.append(error)
                else:
                    yield "the files were put into storage", _Way(files, seed, links)
        if self._may_shrink:
            for how, smaller in shrunk(files, room, self.stop):
                yield f"the pictures were made {how}", _Way(smaller, seed)

    def _upload(self, files: Sequence[EncodedFile]) -> list[str]:
        assert self._storage is not None
        new = {self._key(file): file for file in files if file not in self._links}
        links = self._storage.upload(new, self.stop)
        self._links |= {file: links[key] for key, file in new.items()}
        return [self._links[file] for file in files]

    def _key(self, file: EncodedFile) -> str:
        """A key of the file's own: those of different folders may be called the same."""
        assert self._storage is not None
        if file not in self._keys:
            path = PurePath(file.filename)
            names = (
                f"{path.stem}-{count}{path.suffix}" if count > 1 else path.name for count in itertools.count(1)
            )
            keys = (self._storage.bucket.key(self._job_id, name) for name in names)
            self._keys[file] = next(key for key in keys if key not in self._keys.values())
        return self._keys[file]


@dataclass(frozen=True)
class _Way:
    """One way to send files: as links, or as base64 where there are none."""

    files: Sequence[EncodedFile]
    seed: int | None
    links: Sequence[str] | None = None

    def media(self) -> MediaByKind:
        """The files as they stand in the result; reads them where they go as base64."""
        if self.links is not None:
            return _media(self.files, "s3_url", self.links, self.seed)
        data = (base64.b64encode(file.read()).decode("ascii") for file in self.files)
        return _media(self.files, "base64", data, self.seed)

    def size(self, json_of: Callable[[MediaByKind], bytes], *, with_files: bool = True) -> int:
        """How many bytes the result takes as it is posted, with or without the files; none is read for that."""
        if self.links is not None:
            return len(json_of(self.media()))
        # In place of each file's base64 stands a mark, wherever and however often the result's shape has it.
        mark = uuid.uuid4().hex
        marks = (f"{mark}{position:08}" for position in range(len(self.files)))
        text = json_of(_media(self.files, "base64", marks, self.seed))
        found = re.findall(rf"{mark}(\d{{8}})".encode(), text)
        rest = len(text) - len(found) * (len(mark) + 8)
        if not with_files:
            return rest
        sizes = [base64_size(file.size) for file in self.files]
        return rest + sum(sizes[int(position)] for position in found)


def _media(files: Sequence[EncodedFile], how: str, data: Iterable[str], seed: int | None) -> MediaByKind:
    by_kind: MediaByKind = {}
    for file, text in zip(files, data, strict=True):
        media = Media(
            filename=file.filename,
            type=how,
            data=text,
            mime_type=file.mime_type,
            node_id=file.node_id,
            bytes=file.size,
            width=file.width,
            height=file.height,
            seed=seed,
        )
        by_kind.setdefault(file.kind, []).append(media)
    return by_kind


def _mb(size: int) -> str:
    return f"{size / MB:.3g} MB"
