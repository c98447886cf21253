"""S3-compatible storage: puts files into a bucket and gives links to them.

A service may answer without end, or a byte at a time. So the connections of each upload are watched: an answer
has a limit in bytes and in seconds, and once the job ends all of its connections are cut.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSPreparedRequest,
    AWSResponse,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from urllib3.exceptions import NewConnectionError

from comfy_common.addresses import is_public, resolved
from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import DeliveryFailed, InvalidValue, JobCancelled, JobTimedOut, brief
from comfy_worker.logs import ContextThreadPool
from comfy_worker.request.s3_config import ENDPOINT_KEY
from comfy_worker.response.encode import EncodedFile
from comfy_worker.s3_location import Bucket

__all__ = ["Storage", "job_storage"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
# How long an answer may take, from the last byte sent to the last byte received.
ANSWER_LIMIT_S = 30.0
# S3 answers an upload with some hundred bytes, and a failure with some thousand.
ANSWER_LIMIT_BYTES = 100_000
CHUNK_BYTES = 1 << 14
# How long what was uploaded in vain may take to be removed.
REMOVE_LIMIT_S = 10.0
PARALLEL = 8
POLL_S = 0.02
# What an answer that makes no sense can lead to in boto3: a part without an ETag, an upload without an id.
FAILURES = (BotoCoreError, ClientError, OSError, LookupError, RuntimeError, TypeError, ValueError)
# boto3 asks where a bucket is each time that it is redirected, without an end.
MAX_LOOK_UPS = 2 * PARALLEL


@dataclass
class _Watched:
    """A connection of an upload.

    Attributes:
        sock: its socket, as a duplicate: TLS takes the original one away.
        waits_since: when its last byte was sent, as ``time.monotonic()`` counts; None while it is sending.
        is_cut: whether it was cut.
    """

    sock: socket.socket
    waits_since: float | None
    is_cut: bool = False


class _Watch:
    """Watches the connections of one upload, and cuts those that must end.

    Args:
        stop: when all must end.
        answer_limit_s: how long an answer may take.
        public_only: whether only addresses of the public internet may be reached.
    """

    def __init__(self, stop: Stop, answer_limit_s: float, public_only: bool) -> None:
        self._stop = stop
        self._answer_limit_s = answer_limit_s
        self._public_only = public_only
        self._lock = threading.Lock()
        self._watched: list[_Watched] = []
        self._over = threading.Event()
        self._asked = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch during a block; in the end no connection is left."""
        thread = threading.Thread(target=self._run, name="upload-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def opened(self, connection: Any, sock: socket.socket) -> _Watched:
        """Watch a connection from now on.

        Raises:
            NewConnectionError: it may not be.
        """
        watched = _Watched(sock.dup(), time.monotonic())
        with self._lock:
            self._watched.append(watched)
        problem = ""
        if self._over.is_set() or self._stop.is_due:
            problem = "the upload must end"
        elif self._public_only and not is_public(sock.getpeername()[0]):
            problem = "its address is not public"
        if problem:
            sock.close()
            raise NewConnectionError(connection, problem)
        return watched

    def asked(self, watched: _Watched | None) -> None:
        """Note the connection by which this thread sends a request."""
        self._asked.connection = watched

    def check_whole(self) -> None:
        """Make sure that the answer that this thread read did not end where its connection was cut.

        Raises:
            TimeoutError: it did.
        """
        watched: _Watched | None = self._asked.connection
        if watched is not None and watched.is_cut:
            raise TimeoutError("its answer took too long")

    def _run(self) -> None:
        while not self._over.wait(TICK_S) and not self._stop.is_due:
            self._cut(time.monotonic() - self._answer_limit_s)
        while True:
            # A connection that was being made when the upload ended may still come.
            self._cut(float("inf"))
            if self._over.wait(TICK_S):
                break
        self._cut(float("inf"))

    def _cut(self, latest: float) -> None:
        """Cut the connections that wait for an answer since then, or since before; with no limit, all."""
        with self._lock:
            late = [
                one
                for one in self._watched
                if latest == float("inf") or (one.waits_since is not None and one.waits_since < latest)
            ]
            self._watched = [one for one in self._watched if one not in late]
        for one in late:
            one.is_cut = True
            with one.sock, contextlib.suppress(OSError):  # it has ended by itself
                one.sock.shutdown(socket.SHUT_RDWR)


class _WatchedConnection:
    """A connection of botocore's whose upload watches it."""

    watch: _Watch
    _watched: _Watched | None = None

    def _new_conn(self) -> socket.socket:
        # Not checked by name: whatever the host's name leads to by now is what counts.
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._watched = self.watch.opened(self, sock)
        return sock

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        # With this header botocore waits for an interim answer, and reads one that is cut short for ever.
        kept = {key: value for key, value in (headers or {}).items() if key.lower() != "expect"}
        self.watch.asked(None)
        super().request(method, url, body, kept, **options)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        self.watch.asked(self._watched)
        if self._watched is not None:
            self._watched.waits_since = None
        super().send(data)  # type: ignore[misc]
        if self._watched is not None:
            self._watched.waits_since = time.monotonic()


class _BoundedSession:
    """Sends requests as botocore's own session does, and reads no more of an answer than the limit.

    Args:
        session: botocore's.
        watch: that of the upload.
    """

    def __init__(self, session: Any, watch: _Watch) -> None:
        attributes = {"watch": watch}
        http_connection = type("_HTTP", (_WatchedConnection, AWSHTTPConnection), attributes)
        https_connection = type("_HTTPS", (_WatchedConnection, AWSHTTPSConnection), attributes)
        pools = {
            "http": type("_HTTPPool", (AWSHTTPConnectionPool,), {"ConnectionCls": http_connection}),
            "https": type("_HTTPSPool", (AWSHTTPSConnectionPool,), {"ConnectionCls": https_connection}),
        }
        # botocore has no open way to say how a connection is made; those by a proxy take it from the session.
        session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = pools
        self._session = session
        self._watch = watch
        self._look_ups = itertools.count()

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send a request and read its answer."""
        if request.method == "HEAD" and next(self._look_ups) >= MAX_LOOK_UPS:
            raise HTTPClientError(error="it redirects again and again")
        request.stream_output = True  # botocore leaves the body alone
        response = self._session.send(request)
        try:
            content = _bounded(response.raw)
            self._watch.check_whole()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HTTPClientError(error=error) from error
        return _ReadResponse(response, content)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


class _ReadResponse(AWSResponse):  # type: ignore[misc]
    """An answer whose body was read."""

    def __init__(self, response: AWSResponse, content: bytes) -> None:
        super().__init__(response.url, response.status_code, response.headers, response.raw)
        self._content = content


def _bounded(raw: Any) -> bytes:
    """The body of an answer.

    Raises:
        ValueError: it is larger than an answer of S3 can be.
    """
    # urllib3's own reader takes a line of any length where a chunk begins; that of Python has a limit.
    response: http.client.HTTPResponse = raw._original_response
    body = bytearray()
    try:
        while chunk := response.read1(CHUNK_BYTES):
            body += chunk
            if len(body) > ANSWER_LIMIT_BYTES:
                raise ValueError(f"its answer has more than {ANSWER_LIMIT_BYTES:,} bytes")
        if response.length:
            raise http.client.IncompleteRead(bytes(body), response.length)
    except BaseException:
        raw.close()
        raise
    raw.release_conn()
    return bytes(body)


class Storage:
    """One bucket; may be shared by threads.

    Args:
        bucket: which, and who asks.
        read_timeout_s: how long the service may be silent before the request is tried again.
        answer_limit_s: how long an answer may take, silent or not.
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
            # Services other than AWS know no trailing checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={} if public_only else None,  # they would resolve the name themselves
        )
        self._lock = threading.Lock()  # a session makes one client at a time
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
    def _client(self, stop: Stop) -> Iterator[Any]:
        """A client whose connections are watched, and end with the block."""
        client = self._new_client()
        watch = _Watch(stop, self._answer_limit_s, self._public_only)
        client._endpoint.http_session = _BoundedSession(client._endpoint.http_session, watch)
        with watch.running(), contextlib.closing(client):
            yield client

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
        config = TransferConfig(max_concurrency=PARALLEL)
        try:
            with self._client(stop) as client, create_transfer_manager(client, config) as transfers:
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
        except FAILURES as error:
            self._remove(files)
            log.warning("upload failed: %s", error, extra={"action": "storage.failed"})
            raise DeliveryFailed(
                f"the storage at {self.bucket.endpoint_url} did not take the files into bucket "
                f"'{self.bucket.name}'; see its answer in the details, and check its settings or ask for "
                "output.delivery base64",
                [{"problem": brief(error, 500), "exception_type": type(error).__name__}],
            ) from error

    def link(self, key: str) -> str:
        """Where a key can be downloaded: signed, or behind the bucket's public URL."""
        if self.bucket.public_url:
            return f"{self.bucket.public_url.rstrip('/')}/{quote(key)}"
        link: str = self._signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": self.bucket.name, "Key": key},
            ExpiresIn=self.bucket.url_expiry_s,
        )
        return link

    def _remove(self, keys: Mapping[str, Any]) -> None:
        """Remove what was uploaded, as far as the service lets it be done soon."""
        stop = Stop(timeout_s=REMOVE_LIMIT_S)
        try:
            with self._client(stop) as client:
                for key in keys:
                    stop.check()
                    client.delete_object(Bucket=self.bucket.name, Key=key)
        except (*FAILURES, JobTimedOut) as error:
            log.warning("could not remove what was uploaded: %s", error, extra={"action": "storage.not_removed"})


def _source(file: EncodedFile) -> str | io.BytesIO:
    return io.BytesIO(file.content) if isinstance(file.content, bytes) else str(file.content)


def _headers(file: EncodedFile) -> dict[str, str]:
    plain = file.filename.isascii() and '"' not in file.filename and "\\" not in file.filename
    name = f'filename="{file.filename}"' if plain else f"filename*=UTF-8''{quote(file.filename)}"
    return {"ContentType": file.mime_type, "ContentDisposition": f"inline; {name}"}


def job_storage(bucket: Bucket, *, allow_private: bool) -> Storage:
    """Make the storage that a job brings along.

    Args:
        bucket: as the job names it.
        allow_private: whether addresses that are not public may be reached.

    Raises:
        InvalidValue: the endpoint is not a usable URL, or has an address that is not public.
    """
    if not allow_private:
        _check_public(bucket.endpoint_url)
    try:
        return Storage(bucket, public_only=not allow_private)
    except (BotoCoreError, ValueError):
        raise InvalidValue(
            f"{ENDPOINT_KEY} should be a URL such as https://s3.eu-central-1.amazonaws.com",
            [{"key": ENDPOINT_KEY}],
        ) from None


def _check_public(endpoint_url: str) -> None:
    url = urlsplit(endpoint_url)
    host = url.hostname or ""
    try:
        addresses = resolved(host, url.port or 443)
    except OSError:
        raise InvalidValue(f"{ENDPOINT_KEY}: there is no host {host}; check it", [{"key": ENDPOINT_KEY}]) from None
    if not all(map(is_public, addresses)):
        raise InvalidValue(
            f"{ENDPOINT_KEY}: {host} has an address that is not public, which this worker puts nothing into; "
            "use storage on the internet, or set ALLOW_PRIVATE_URLS",
            [{"key": ENDPOINT_KEY}],
        )
