"""S3-compatible storage: puts files into a bucket and gives links to them.

Owns boto3. Knows nothing of jobs but the key that a file is to have.
"""

from __future__ import annotations

import io
import logging
import re
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr
from urllib3.exceptions import NewConnectionError

from comfy_common.addresses import is_public, resolved
from comfy_worker.deadline import Stop
from comfy_worker.errors import DeliveryFailed, InvalidValue, JobCancelled, JobTimedOut
from comfy_worker.logs import ContextThreadPool
from comfy_worker.response.encode import EncodedFile
from comfy_worker.s3_location import Bucket, locate

__all__ = ["Storage", "bucket_of", "job_storage"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
PARALLEL = 8
POLL_S = 0.02


class _Public:
    """A connection to the public internet, whatever the host's name leads to by now."""

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        if is_public(sock.getpeername()[0]):
            return sock
        sock.close()
        raise NewConnectionError(self, "its address is not public")  # type: ignore[arg-type]


class _PublicHTTP(_Public, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _PublicHTTPS(_Public, AWSHTTPSConnection):  # type: ignore[misc]
    pass


PUBLIC_POOLS = {
    "http": type("_HTTPPool", (AWSHTTPConnectionPool,), {"ConnectionCls": _PublicHTTP}),
    "https": type("_HTTPSPool", (AWSHTTPSConnectionPool,), {"ConnectionCls": _PublicHTTPS}),
}


class Storage:
    """One bucket; may be shared by threads.

    Args:
        bucket: which, and who asks.
        read_timeout_s: how long the service may be silent before the request is tried again.
        public_only: whether only addresses of the public internet may be reached.
    """

    def __init__(
        self, bucket: Bucket, read_timeout_s: float = READ_TIMEOUT_S, *, public_only: bool = False
    ) -> None:
        self.bucket = bucket
        session = boto3.session.Session(
            aws_access_key_id=bucket.access_key_id,
            aws_secret_access_key=bucket.secret_access_key.get_secret_value(),
        )
        self._client = session.client(
            "s3",
            endpoint_url=bucket.endpoint_url,
            region_name=bucket.region or session.region_name or "us-east-1",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "virtual" if bucket.virtual_hosted else "path"},
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=read_timeout_s,
                # Services other than AWS know no trailing checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={} if public_only else None,  # they would resolve the name themselves
            ),
        )
        if public_only:
            # botocore has no open way to say what a connection may lead to.
            self._client._endpoint.http_session._manager.pool_classes_by_scheme = PUBLIC_POOLS

    def upload(self, files: Mapping[str, EncodedFile], stop: Stop | None = None) -> dict[str, str]:
        """Put files into the bucket, in parallel, streamed from where they lie: all of them, or none.

        Args:
            files: by key.
            stop: when to give up; None: never. What is in the bucket by then is removed, be it a little later.

        Returns:
            By key, the link: signed, or behind the bucket's public URL.

        Raises:
            DeliveryFailed: the service refused one, or did not answer, also when asked again.
            JobCancelled: ``stop`` was due.
            JobTimedOut: ``stop`` was due.
        """
        stop = stop or Stop()
        pool = ContextThreadPool(1, thread_name_prefix="upload")
        work = pool.submit(self._put, files, stop)
        pool.shutdown(wait=False)
        stop.wait_for(work)
        return {key: self.link(key) for key in files}

    def _put(self, files: Mapping[str, EncodedFile], stop: Stop) -> None:
        try:
            with create_transfer_manager(self._client, TransferConfig(max_concurrency=PARALLEL)) as transfers:
                uploads = [
                    transfers.upload(_source(file), self.bucket.name, key, extra_args=_headers(file))
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
        except (BotoCoreError, ClientError, OSError) as error:
            self._remove(files)
            log.warning("upload failed: %s", error, extra={"action": "storage.failed"})
            raise DeliveryFailed(
                f"the storage at {self.bucket.endpoint_url} did not take the files into bucket "
                f"'{self.bucket.name}'; see its answer in the details, and check its settings or ask for "
                "output.delivery base64",
                [{"problem": str(error), "exception_type": type(error).__name__}],
            ) from error

    def link(self, key: str) -> str:
        """Where a key can be downloaded: signed, or behind the bucket's public URL."""
        if self.bucket.public_url:
            return f"{self.bucket.public_url.rstrip('/')}/{quote(key)}"
        link: str = self._client.generate_presigned_url(
            "get_object",
            Params={"Bucket": self.bucket.name, "Key": key},
            ExpiresIn=self.bucket.url_expiry_s,
        )
        return link

    def _remove(self, keys: Mapping[str, Any]) -> None:
        try:
            for key in keys:
                self._client.delete_object(Bucket=self.bucket.name, Key=key)
        except (BotoCoreError, ClientError) as error:
            log.warning("could not remove what was uploaded: %s", error, extra={"action": "storage.not_removed"})


def _source(file: EncodedFile) -> str | io.BytesIO:
    return io.BytesIO(file.content) if isinstance(file.content, bytes) else str(file.content)


def _headers(file: EncodedFile) -> dict[str, str]:
    plain = file.filename.isascii() and '"' not in file.filename and "\\" not in file.filename
    name = f'filename="{file.filename}"' if plain else f"filename*=UTF-8''{quote(file.filename)}"
    return {"ContentType": file.mime_type, "ContentDisposition": f"inline; {name}"}


ENDPOINT = "s3Config.endpointUrl"
# Every storage's keys have this form; a longer text is a mistake, or an attack on the worker's memory.
CREDENTIAL = re.compile(r"[!-~]{1,512}")


def job_storage(s3_config: object, *, allow_private: bool) -> Storage:
    """The storage of a job.

    Args:
        s3_config: RunPod's ``{accessId, accessSecret, bucketName, endpointUrl}``.
        allow_private: whether addresses that are not public may be reached.

    Raises:
        InvalidValue: a key is missing or makes no sense, or the endpoint has an address that is not public.
    """
    bucket = bucket_of(s3_config)
    if not allow_private:
        _check_public(bucket.endpoint_url)
    return Storage(bucket, public_only=not allow_private)


def bucket_of(s3_config: object) -> Bucket:
    """Read an ``s3Config``; argument and error as above."""
    given = s3_config if isinstance(s3_config, dict) else {}
    wanted = ("accessId", "accessSecret", "endpointUrl")
    missing = [key for key in wanted if not (isinstance(given.get(key), str) and given[key])]
    if missing or not isinstance(given.get("bucketName", ""), str):
        raise InvalidValue(
            f"s3Config must be an object with {', '.join(wanted)} and bucketName, each some text",
            [{"key": f"s3Config.{key}", "problem": "is missing"} for key in missing],
        )
    wrong = [key for key in ("accessId", "accessSecret") if not CREDENTIAL.fullmatch(given[key])]
    if wrong:
        raise InvalidValue(
            f"s3Config.{wrong[0]} must be at most 512 letters, digits and signs without blanks; copy it anew "
            "from your storage's settings",
            [{"key": f"s3Config.{key}", "problem": "does not have the form of a key"} for key in wrong],
        )
    try:
        place = locate(given["endpointUrl"], given.get("bucketName", ""))
    except ValueError as error:
        raise InvalidValue(f"{ENDPOINT} {error}", [{"key": ENDPOINT}]) from None
    secret = SecretStr(given["accessSecret"])
    return Bucket(access_key_id=given["accessId"], secret_access_key=secret, **place)


def _check_public(endpoint_url: str) -> None:
    url = urlsplit(endpoint_url)
    host = url.hostname or ""
    try:
        addresses = resolved(host, url.port or 443)
    except OSError:
        raise InvalidValue(f"{ENDPOINT}: there is no host {host}; check it", [{"key": ENDPOINT}]) from None
    if not all(map(is_public, addresses)):
        raise InvalidValue(
            f"{ENDPOINT}: {host} has an address that is not public, which this worker puts nothing into; "
            "use storage on the internet, or set ALLOW_PRIVATE_URLS",
            [{"key": ENDPOINT}],
        )
