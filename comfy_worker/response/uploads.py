"""Uploads the files of one job to storage, each once and within a time limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, JobTimedOut
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.s3 import S3Uploader

__all__ = ["JobUploads"]

log = logging.getLogger(__name__)

MB = 1_000_000
# How long uploads that fail may take in all, and how many bytes of the files add a second to that.
STORAGE_LIMIT_S = 30.0
STORAGE_BYTES_PER_S = MB
# Time of the job that is kept for the files to come as base64: so much, but at most this share of
# what is left.
RESERVE_S, RESERVE_SHARE = 10.0, 1 / 3


class JobUploads:
    """The uploads of one job.

    Args:
        job_id: RunPod's id; part of every key in the storage.
        storage: uploads the files.
        stop: when to give up.
    """

    def __init__(self, job_id: str, storage: S3Uploader, stop: Deadline) -> None:
        self._job_id = job_id
        self._storage = storage
        self._stop = stop
        self._storage_left_s = STORAGE_LIMIT_S
        self._keys: dict[EncodedFile, str] = {}
        self._links: dict[EncodedFile, str] = {}

    def links(self, files: Sequence[EncodedFile]) -> list[str]:
        """Return the links of files, and upload the files that are not uploaded yet.

        Raises:
            DeliveryFailed: the storage did not accept the files, or took too long.
            JobCancelled: ``stop`` was due.
            JobTimedOut: ``stop`` was due.
        """
        new = {self._key(file): file for file in files if file not in self._links}
        links = self._upload(new)
        for key, file in new.items():
            self._links[file] = links[key]
        return [self._links[file] for file in files]

    def _upload(self, files: Mapping[str, EncodedFile]) -> dict[str, str]:
        """Upload files by key, and return the links. The job keeps time to do without storage."""
        began = time.monotonic()
        left_s = self._stop.left_s
        size = sum(file.size for file in files.values())
        limit_s = min(
            self._storage_left_s + size / STORAGE_BYTES_PER_S,
            left_s - min(RESERVE_S, left_s * RESERVE_SHARE),
        )
        try:
            return self._storage.upload(files, self._stop.part(limit_s))
        except JobTimedOut as error:
            self._stop.check()
            self._take_storage_time(began)
            bucket = self._storage.bucket
            log.warning("upload took too long", extra={"action": "storage.failed"})
            raise DeliveryFailed(
                f"the storage at {bucket.endpoint_url} did not accept the files for bucket "
                f"'{bucket.name}' within {limit_s:.0f} s; check its settings and whether "
                "it can be reached, or ask for output.delivery base64",
                [{"problem": "the upload took too long", "limit_s": round(limit_s, 1)}],
            ) from error
        except DeliveryFailed:
            self._take_storage_time(began)
            raise

    def _take_storage_time(self, began: float) -> None:
        """Let later uploads of this job wait less: each output of a stream may fail again."""
        elapsed_s = time.monotonic() - began
        self._storage_left_s = max(self._storage_left_s - elapsed_s, 0.0)

    def _key(self, file: EncodedFile) -> str:
        """Return the file's key.

        Files of different folders may have the same name, but not the same key.
        """
        if file not in self._keys:
            path = PurePath(file.filename)
            key = self._storage.bucket.key(self._job_id, path.name)
            count = 1
            while key in self._keys.values():
                count += 1
                key = self._storage.bucket.key(self._job_id, f"{path.stem}-{count}{path.suffix}")
            self._keys[file] = key
        return self._keys[file]
