"""One file from a URL that a client gave: only from public addresses, only so large, only so long.

Owns what a URL may reach. A host's addresses are checked once they are resolved, and the connection goes to the
very address that was checked, at every redirect anew. Proxies of the environment are not used: they would resolve
the name themselves. Query strings, which hold tokens, stand in no error. Knows nothing of pictures.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from comfy_common.addresses import is_public, resolved
from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import InvalidMedia

__all__ = ["Fetcher", "matches"]

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 16
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "comfy-worker", "Connection": "close"}

CONNECT_TIMEOUT_S = 10.0
LONGEST_HOST = 253


@dataclass(frozen=True)
class _Target:
    """A URL taken apart: ``path`` is what a request line holds, host and path are ASCII."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class Fetcher:
    """What the URLs of one job may reach.

    Attributes:
        max_mb: the largest file, in megabytes.
        deadline: when all files must have arrived, as ``time.monotonic()`` counts.
        allowed_hosts: host names, ``.example.com`` for all below it; none: every host.
        allow_private: whether addresses that are not public may be reached.
        resolve: as ``socket.getaddrinfo``.
        stop: when to give up before the deadline.
    """

    max_mb: float
    deadline: float
    allowed_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    resolve: Callable[..., list[Any]] = socket.getaddrinfo
    stop: Stop = field(default_factory=Stop)

    def fetch(self, key: str, url: str) -> bytes:
        """Fetch a file.

        Args:
            key: where the URL stood in the input, for the error.
            url: as the client gave it.

        Raises:
            InvalidMedia: it may not be reached, cannot be reached, is too large, or takes too long.
            JobCancelled: ``stop`` was due.
            JobTimedOut: ``stop`` was due.
        """
        for _ in range(MAX_REDIRECTS + 1):
            target = self._target(key, url)
            self.stop.check()
            try:
                with self._response(key, target) as response:
                    if response.status not in (301, 302, 303, 307, 308):
                        return self._body(key, target, response)
                    url = urljoin(url, response.headers.get("Location", ""))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.stop.check()
                if time.monotonic() >= self.deadline:
                    raise InvalidMedia(
                        f"{key}: {target.host} took too long to send its file; use a faster host, or send base64"
                    ) from None
                raise InvalidMedia(
                    f"{key}: {target.host} could not be read ({type(error).__name__}); check the URL"
                ) from None
        raise InvalidMedia(f"{key}: {target.host} redirects too often; use the URL that it leads to")

    def _target(self, key: str, url: str) -> _Target:
        try:
            prepared = requests.Request("GET", url).prepare()
            parts = urlsplit(prepared.url or "")
            host, port = parts.hostname or "", parts.port
        except (requests.RequestException, ValueError):
            raise InvalidMedia(f"{key} is no URL that can be read; check it, or send base64") from None
        if len(host) > LONGEST_HOST:
            raise InvalidMedia(f"{key} is no URL that can be read; check it, or send base64")
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidMedia(f"{key} must be base64, a data URI, or a URL that begins with http:// or https://")
        if self.allowed_hosts and not any(matches(host, allowed) for allowed in self.allowed_hosts):
            raise InvalidMedia(
                f"{key}: this worker fetches nothing from {host}; use {' or '.join(self.allowed_hosts)}, "
                "or send base64"
            )
        return _Target(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), prepared.path_url)

    @contextlib.contextmanager
    def _response(self, key: str, target: _Target) -> Iterator[http.client.HTTPResponse]:
        """The answer to a GET; whoever drips is cut off at the deadline, be it in the handshake or the headers."""
        addresses = self._addresses(key, target)
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(self._connected(addresses, target.port))
            connection = http.client.HTTPConnection(target.host, target.port)
            if target.scheme == "https":
                context = _tls_context()
                connection = http.client.HTTPSConnection(target.host, target.port, context=context)
                sock = context.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
                stack.enter_context(sock)
            done = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(sock, done), name="input-watch")
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(done.set)
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection.sock = sock
            connection.request("GET", target.path, headers=HEADERS)
            yield stack.enter_context(connection.getresponse())

    def _watch(self, sock: socket.socket, done: threading.Event) -> None:
        while not done.wait(min(TICK_S, self._left_s())):
            if self._is_over():
                _cut(sock)
                return

    def _is_over(self) -> bool:
        return self.stop.is_due or time.monotonic() >= self.deadline

    def _addresses(self, key: str, target: _Target) -> list[str]:
        try:
            addresses = resolved(target.host, target.port, self.resolve)
        except OSError:
            raise InvalidMedia(f"{key}: there is no host {target.host}; check the URL") from None
        if not self.allow_private and not all(map(is_public, addresses)):
            raise InvalidMedia(
                f"{key}: {target.host} has an address that is not public, which this worker does not fetch from; "
                "send base64"
            )
        return addresses

    def _connected(self, addresses: list[str], port: int) -> socket.socket:
        *first, last = addresses
        for address in first:
            with contextlib.suppress(OSError):
                return self._connected_to(address, port)
        return self._connected_to(last, port)

    def _connected_to(self, address: str, port: int) -> socket.socket:
        sock = socket.create_connection((address, port), timeout=min(self._left_s(), CONNECT_TIMEOUT_S))
        sock.settimeout(self._left_s())
        return sock

    def _body(self, key: str, target: _Target, response: http.client.HTTPResponse) -> bytes:
        if response.status != 200:
            raise InvalidMedia(
                f"{key}: {target.host} answered {response.status}; use a URL that is open to all, or send base64"
            )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise InvalidMedia(f"{key}: {target.host} sends its file compressed; send it as base64")
        max_bytes = int(self.max_mb * 1_000_000)
        data = bytearray()
        while len(data) <= max_bytes and (response.length or 0) <= max_bytes:
            chunk = response.read1(CHUNK_BYTES)
            if not chunk:
                if response.length or self._is_over():
                    raise http.client.IncompleteRead(b"")
                return bytes(data)
            data += chunk
        raise InvalidMedia(f"{key}: the file at {target.host} is too large; send at most {self.max_mb:g} MB")

    def _left_s(self) -> float:
        return max(self.deadline - time.monotonic(), 0.001)


def matches(host: str, allowed: str) -> bool:
    """Whether a host is the one that is allowed, or for ``.example.com`` one below it."""
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """The system's authorities and those that requests brings: a slim container has none of its own."""
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        # A TLS socket's own shutdown drops its state under the feet of the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
