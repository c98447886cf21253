"""Uploads files to S3-compatible storage, and makes links to them."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, JobCancelled, JobTimedOut, brief
from comfy_worker.logs import ContextThreadPool
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.s3_connection import BoundedSession, ConnectionWatch
from comfy_worker.s3_location import Bucket

__all__ = ["S3Uploader"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
# How long an answer may take, from the last byte sent to the last byte received.
ANSWER_LIMIT_S = 30.0
# How long the removal of files may take if the upload as a whole failed.
REMOVE_LIMIT_S = 10.0
PARALLEL = 8
POLL_S = 0.02
# What boto3 raises for errors of the service, and for answers that lack a part's ETag or an
# upload's id.
FAILURES = (BotoCoreError, ClientError, OSError, LookupError, RuntimeError, TypeError, ValueError)


class S3Uploader:
    """Uploads files to one bucket. Threads may share it.

    Args:
        bucket: the bucket and its credentials.
        read_timeout_s: how long the service may be silent before the request is sent again.
        answer_limit_s: how long an answer may take in all.
        public_only: whether only addresses of the public internet may be reached.
    """

    def __init__(
        self,
        bucket: Bucket,
        read_timeout_s: float = READ_TIMEOUT_S,
        answer_limit_s: float = ANSWER_LIMIT_S,
        *,
        public_only: bool = False,
    ) -> None:
        self.bucket = bucket
        self._answer_limit_s = answer_limit_s
        self._public_only = public_only
        self._session = boto3.session.Session(
            aws_access_key_id=bucket.access_key_id,
            aws_secret_access_key=bucket.secret_access_key.get_secret_value(),
        )
        self._config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "virtual" if bucket.virtual_hosted else "path"},
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            # Services other than AWS do not understand trailing checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # A proxy would resolve the host itself, and so reach private addresses.
            proxies={} if public_only else None,
        )
        self._lock = threading.Lock()  # boto3 sessions are not safe for threads
        self._signer = self._new_client()

    def _new_client(self) -> Any:
        with self._lock:
            return self._session.client(
                "s3",
                endpoint_url=self.bucket.endpoint_url,
                region_name=self.bucket.region or self._session.region_name or "us-east-1",
                config=self._config,
            )

    @contextmanager
    def _client(self, stop: Deadline) -> Iterator[Any]:
        """Make a client whose connections are watched, and end when the block is left."""
        client = self._new_client()
        watch = ConnectionWatch(stop, self._answer_limit_s, self._public_only)
        client._endpoint.http_session = BoundedSession(client._endpoint.http_session, watch)
        with watch.running(), contextlib.closing(client):
            yield client

    def upload(
        self, files: Mapping[str, EncodedFile], stop: Deadline | None = None
    ) -> dict[str, str]:
        """Upload files in parallel: all of them or none.

        Files on the disk are streamed, not read into memory.

        Args:
            files: by key.
            stop: when to give up; None: never. Files that were uploaded by then are removed in the
                background.

        Returns:
            The links by key: signed, or below the bucket's public URL.

        Raises:
            DeliveryFailed: the service rejected a file, or did not answer, in every attempt.
            JobCancelled: ``stop`` was due.
            JobTimedOut: ``stop`` was due.
        """
        stop = stop or Deadline()
        pool = ContextThreadPool(1, thread_name_prefix="upload")
        upload = pool.submit(self._upload_all, files, stop)
        pool.shutdown(wait=False)
        stop.wait_for(upload)
        return {key: self.link(key) for key in files}

    def _upload_all(self, files: Mapping[str, EncodedFile], stop: Deadline) -> None:
        config = TransferConfig(max_concurrency=PARALLEL)
        try:
            with self._client(stop) as client, create_transfer_manager(client, config) as transfers:
                uploads = [
                    transfers.upload(_source(file), self.bucket.name, key, _headers(file))
                    for key, file in files.items()
                ]
                while not all(upload.done() for upload in uploads):
                    stop.check()
                    time.sleep(POLL_S)
                for upload in uploads:
                    upload.result()
        except (JobCancelled, JobTimedOut):
            self._remove(files)
            raise
        except FAILURES as error:
            self._remove(files)
            log.warning("upload failed: %s", error, extra={"action": "storage.failed"})
            raise DeliveryFailed(
                f"the storage at {self.bucket.endpoint_url} did not accept the files for bucket "
                f"'{self.bucket.name}' ({brief(error, 200)}); check its settings, or ask for "
                "output.delivery base64",
                [{"problem": brief(error, 500), "exception_type": type(error).__name__}],
            ) from error

    def link(self, key: str) -> str:
        """Return the URL that downloads a key: signed, or below the bucket's public URL."""
        if self.bucket.public_url:
            return f"{self.bucket.public_url.rstrip('/')}/{quote(key)}"
        link: str = self._signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": self.bucket.name, "Key": key},
            ExpiresIn=self.bucket.url_expiry_s,
        )
        return link

    def _remove(self, keys: Iterable[str]) -> None:
        """Remove uploaded files; gives up after a while, since a silent service may not block."""
        stop = Deadline(timeout_s=REMOVE_LIMIT_S)
        try:
            with self._client(stop) as client:
                for key in keys:
                    stop.check()
                    client.delete_object(Bucket=self.bucket.name, Key=key)
        except (*FAILURES, JobTimedOut) as error:
            log.warning(
                "could not remove the uploaded files: %s",
                error,
                extra={"action": "storage.not_removed"},
            )


def _source(file: EncodedFile) -> str | io.BytesIO:
    if isinstance(file.content, bytes):
        return io.BytesIO(file.content)
    return str(file.content)


def _headers(file: EncodedFile) -> dict[str, str]:
    is_plain = file.filename.isascii() and not set(file.filename) & {'"', "\\"}
    name = f"filename*=UTF-8''{quote(file.filename)}"
    if is_plain:
        name = f'filename="{file.filename}"'
    return {"ContentType": file.mime_type, "ContentDisposition": f"inline; {name}"}
