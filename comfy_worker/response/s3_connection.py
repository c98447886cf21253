"""Limits the connections of an upload: the size and duration of answers, and the addresses.

A service may answer without end, or one byte at a time. botocore has neither a limit for the size
of an answer nor one for its duration. So each upload has a watch, which cuts connections that take
too long, and all of its connections once the job ends.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSPreparedRequest,
    AWSResponse,
)
from botocore.exceptions import HTTPClientError
from urllib3.exceptions import NewConnectionError

from comfy_common.addresses import is_public
from comfy_worker.deadline import TICK_S, Deadline

__all__ = ["BoundedSession", "ConnectionWatch"]

# S3 answers an upload with some hundred bytes, and a failure with some thousand.
ANSWER_LIMIT_BYTES = 100_000
CHUNK_BYTES = 1 << 14
# boto3 looks up a bucket's region at each redirect, without a limit.
MAX_LOOK_UPS = 16
# A service may say "100 Continue" before its answer: once, or once more behind a proxy.
MAX_INTERIM = 5


@dataclass(eq=False)
class _WatchedSocket:
    """The socket of a connection.

    Attributes:
        sock: a duplicate of the socket: TLS detaches the original one.
        waits_since: when the last byte was sent, in seconds of ``time.monotonic()``; None during a
            request.
        is_cut: whether the watch cut the connection.
    """

    sock: socket.socket
    waits_since: float | None
    is_cut: bool = False


class ConnectionWatch:
    """Watches the connections of one upload, and cuts those that must end.

    Args:
        stop: when all connections must end.
        answer_limit_s: how long an answer may take, in seconds.
        public_only: whether only addresses of the public internet may be reached.
    """

    def __init__(self, stop: Deadline, answer_limit_s: float, public_only: bool) -> None:
        self._stop = stop
        self._answer_limit_s = answer_limit_s
        self._public_only = public_only
        self._lock = threading.Lock()
        self._sockets: list[_WatchedSocket] = []
        self._over = threading.Event()
        self._current = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch during a block. When the block is left, every connection is cut."""
        thread = threading.Thread(target=self._run, name="upload-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def add(self, connection: Any, sock: socket.socket) -> _WatchedSocket:
        """Watch a connection from now on.

        Raises:
            NewConnectionError: the upload must end, or the address is not public.
        """
        watched = _WatchedSocket(sock.dup(), time.monotonic())
        with self._lock:
            self._sockets.append(watched)
        problem = ""
        if self._over.is_set() or self._stop.is_due:
            problem = "the upload must end"
        elif self._public_only and not is_public(sock.getpeername()[0]):
            problem = "its address is not public"
        if problem:
            sock.close()
            raise NewConnectionError(connection, problem)
        return watched

    def set_current(self, watched: _WatchedSocket | None) -> None:
        """Remember the connection on which this thread sends a request."""
        self._current.connection = watched

    def check_complete(self) -> None:
        """Check that the connection was not cut while this thread read its answer.

        Raises:
            TimeoutError: the connection was cut.
        """
        watched: _WatchedSocket | None = self._current.connection
        if watched is not None and watched.is_cut:
            raise TimeoutError("its answer took too long")

    def _run(self) -> None:
        while not self._over.wait(TICK_S) and not self._stop.is_due:
            self._cut(time.monotonic() - self._answer_limit_s)
        self._cut(math.inf)
        # Another thread may still open a connection after the job has ended.
        while not self._over.wait(TICK_S):
            self._cut(math.inf)
        self._cut(math.inf)

    def _cut(self, before: float) -> None:
        """Cut the connections that have waited for an answer since before this time; inf: all."""
        late = []
        kept = []
        with self._lock:
            for watched in self._sockets:
                is_late = watched.waits_since is not None and watched.waits_since < before
                if is_late or before == math.inf:
                    late.append(watched)
                else:
                    kept.append(watched)
            self._sockets = kept
        for watched in late:
            watched.is_cut = True
            with watched.sock, contextlib.suppress(OSError):  # the other side has closed it already
                watched.sock.shutdown(socket.SHUT_RDWR)


class _BoundedResponse(http.client.HTTPResponse):
    """An answer before which the service sends few interim answers.

    Python's own reader skips any number of them, and each restarts the time limit of the socket.
    """

    _status_lines = 0

    def _read_status(self) -> Any:
        self._status_lines += 1
        if self._status_lines > MAX_INTERIM + 1:
            raise http.client.HTTPException("the service keeps sending interim answers")
        return super()._read_status()  # type: ignore[misc]


class _WatchedConnection:
    """A mixin for botocore's connections: the watch of the upload watches them."""

    response_class = _BoundedResponse
    watch: ConnectionWatch
    _watched: _WatchedSocket | None = None

    def _new_conn(self) -> socket.socket:
        # The address that was really connected to is checked: the host's name may have changed its
        # address.
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._watched = self.watch.add(self, sock)
        return sock

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        **options: Any,
    ) -> None:
        # With "Expect" botocore waits for an interim answer, and reads one that is cut short for
        # ever.
        kept = {key: value for key, value in (headers or {}).items() if key.lower() != "expect"}
        self.watch.set_current(None)
        super().request(method, url, body, kept, **options)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        self.watch.set_current(self._watched)
        if self._watched is not None:
            self._watched.waits_since = None
        super().send(data)  # type: ignore[misc]
        if self._watched is not None:
            self._watched.waits_since = time.monotonic()


class BoundedSession:
    """Sends requests as botocore's own session does, but limits each answer.

    Args:
        session: botocore's session.
        watch: the watch of the upload.
    """

    def __init__(self, session: Any, watch: ConnectionWatch) -> None:
        attributes = {"watch": watch}
        http_connection = type("_HTTP", (_WatchedConnection, AWSHTTPConnection), attributes)
        https_connection = type("_HTTPS", (_WatchedConnection, AWSHTTPSConnection), attributes)
        http_attributes = {"ConnectionCls": http_connection}
        https_attributes = {"ConnectionCls": https_connection}
        pools = {
            "http": type("_HTTPPool", (AWSHTTPConnectionPool,), http_attributes),
            "https": type("_HTTPSPool", (AWSHTTPSConnectionPool,), https_attributes),
        }
        # botocore has no public option for the class of its connections. Connections through a
        # proxy take the classes from the session, all others from its manager.
        session._pool_classes_by_scheme = pools
        session._manager.pool_classes_by_scheme = pools
        self._session = session
        self._watch = watch
        self._look_ups = itertools.count()

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send a request and read its answer."""
        if request.method == "HEAD" and next(self._look_ups) >= MAX_LOOK_UPS:
            raise HTTPClientError(error="it redirects again and again")
        request.stream_output = True  # botocore does not read the body then
        response = self._session.send(request)
        try:
            content = _read_bounded(response.raw)
            self._watch.check_complete()
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


def _read_bounded(raw: Any) -> bytes:
    """Read the body of an answer.

    Raises:
        ValueError: the body is larger than an answer of S3 can be.
    """
    # urllib3 reads a line of any length at the beginning of a chunk; Python's own reader has a
    # limit.
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
