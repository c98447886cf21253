"""Sends HTTP requests, and connects only to addresses that were checked.

A client may name a host whose address is public during the check and private during the connection
(DNS rebinding). Therefore each request resolves its host once, checks the addresses and connects to
one of them. Every redirect does the same. A request that must not reach private addresses does not
use proxies either, since a proxy resolves names itself. All downloads of this project come through
this module. It uses only the standard library.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from comfy_common.addresses import is_public, resolved

__all__ = [
    "Answer",
    "InvalidURL",
    "PinnedClient",
    "PrivateAddress",
    "RequestRefused",
    "Target",
    "TooManyRedirects",
    "UnknownHost",
    "UnsupportedProxy",
    "UnsupportedScheme",
    "basic_authorization",
    "parse_target",
]

MAX_REDIRECTS = 8
REDIRECTS = (301, 302, 303, 307, 308)
MAX_ADDRESSES = 4
LONGEST_HOST = 253
CONNECT_TIMEOUT_S = 10.0
TICK_S = 0.1
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": "comfy-worker",
    "Connection": "close",
}
# Characters that are not quoted in a path or query. "%" is one of them, since a URL may be quoted
# already.
UNQUOTED = "!#$%&'()*+,/:;=?@[]~"
# Not allowed in a host or a user name. Programs disagree about where a host with a backslash ends.
FORBIDDEN_IN_HOST = re.compile(r"[\x00-\x20\x7f\\]")
# Name an organisation's own certificate authorities, for programs that use requests or curl.
CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class RequestRefused(Exception):
    """The base class of the reasons why a request is not sent.

    Args:
        host: the host in the URL; empty if it has none.
    """

    def __init__(self, host: str = "") -> None:
        super().__init__(host)
        self.host = host


class InvalidURL(RequestRefused):
    """The URL cannot be read."""


class UnsupportedScheme(RequestRefused):
    """The URL begins neither with http:// nor with https://."""


class UnknownHost(RequestRefused):
    """The host has no address."""


class PrivateAddress(RequestRefused):
    """The host has an address that is not public."""


class UnsupportedProxy(RequestRefused):
    """The proxy is a SOCKS proxy, which the standard library does not support."""


class TooManyRedirects(RequestRefused):
    """The host redirects too often."""


@dataclass(frozen=True)
class Target:
    """The parts of a URL that a request needs; host and path are ASCII."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The URL, without a fragment and a user name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Answer:
    """The answer to a request. Its body is not read yet.

    Args:
        target: the URL that answered, after all redirects.
        response: status, headers and body.
    """

    target: Target
    response: http.client.HTTPResponse

    @property
    def location(self) -> str | None:
        """Where a redirect leads to, as the host sent it; None if the answer is not a redirect."""
        if self.response.status not in REDIRECTS:
            return None
        location = self.response.headers.get("Location")
        if location is None:
            return None
        try:
            return location.encode("latin-1").decode(
                "utf-8"
            )  # http.client reads headers as Latin-1
        except UnicodeError:
            return location


def parse_target(url: str) -> Target:
    """Parse a URL.

    Raises:
        InvalidURL: the URL cannot be read.
        UnsupportedScheme: the URL begins neither with http:// nor with https://.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        if parts.scheme not in ("http", "https"):
            raise UnsupportedScheme(host)
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        path = quote(parts.path or "/", safe=UNQUOTED)
        if parts.query:
            path += "?" + quote(parts.query, safe=UNQUOTED)
    except ValueError:
        raise InvalidURL from None
    if not host or len(host) > LONGEST_HOST or FORBIDDEN_IN_HOST.search(parts.netloc):
        raise InvalidURL
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, host, port, path)


def basic_authorization(url: str) -> str:
    """The Authorization header for the user and password in a URL; empty if the URL has none."""
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(credentials.encode()).decode("ascii")


def _no_limit(_target: Target) -> None:
    return


def _no_headers(_target: Target) -> Mapping[str, str]:
    return {}


def _never() -> bool:
    return False


@dataclass(frozen=True)
class PinnedClient:
    """Sends requests; may be shared by threads.

    Args:
        allow_private: whether the client may connect to addresses that are not public.
        use_proxies: whether to use the proxies of the environment; only for requests of an
            operator.
        proxy: the URL of the proxy to use, in place of those of the environment; empty for none.
        is_over: whether the request must end now. A thread calls this every 0.1 s and then closes
            the connection, so that a slow or silent host cannot block the caller.
        silence_s: how long to wait for the next bytes.
        admit: gets each URL, also of redirects, before its host is resolved; may raise to refuse
            it.
        resolve: as `socket.getaddrinfo`.
    """

    allow_private: bool = False
    use_proxies: bool = False
    proxy: str | None = None
    is_over: Callable[[], bool] = _never
    silence_s: Callable[[], float] = lambda: 60.0
    admit: Callable[[Target], None] = _no_limit
    resolve: Callable[..., list[Any]] = socket.getaddrinfo

    @contextlib.contextmanager
    def open(
        self,
        url: str,
        headers: Callable[[Target], Mapping[str, str]] = _no_headers,
        *,
        method: str = "GET",
        follow: bool = True,
        body: bytes | None = None,
    ) -> Iterator[Answer]:
        """Send a request. Leaving the block closes the connection.

        Args:
            url: the URL.
            headers: returns the headers for each URL, so that no redirect's host receives a token.
            method: GET, HEAD or POST.
            follow: whether to follow redirects; if not, a redirect is the answer.
            body: the body of a POST; such a request must not follow redirects.

        Yields:
            The answer of the last URL, whatever its status is.

        Raises:
            RequestRefused: the request was not sent; the subclass says why.
            OSError: the host could not be reached, or the connection broke.
            http.client.HTTPException: the host does not speak HTTP.
        """
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_target(url)
            self.admit(target)
            sent_headers = {**HEADERS, **headers(target)}
            with self._answered(target, method, sent_headers, body) as answer:
                location = answer.location if follow else None
                if location is None:
                    yield answer
                    return
            try:
                url = urljoin(url, location)
            except ValueError:
                raise InvalidURL(target.host) from None
        raise TooManyRedirects(target.host)

    @contextlib.contextmanager
    def _answered(
        self, target: Target, method: str, headers: Mapping[str, str], body: bytes | None
    ) -> Iterator[Answer]:
        proxy = self._proxy(target)
        with contextlib.ExitStack() as stack:
            cutter = stack.enter_context(_Cutter(self.is_over))
            connection = (
                self._through_proxy(proxy, target, cutter)
                if proxy
                else self._direct(target, cutter)
            )
            stack.callback(connection.close)
            path = target.path
            if proxy and target.scheme == "http":
                path = target.url
                headers = {**headers, **_proxy_headers(proxy)}
            connection.request(method, path, body=body, headers=dict(headers))
            response = stack.enter_context(connection.getresponse())
            if self.is_over():
                # http.client accepts headers that end early, so we must not.
                raise TimeoutError("the headers were cut off")
            yield Answer(target, response)

    def _direct(self, target: Target, cutter: _Cutter) -> http.client.HTTPConnection:
        sock = self.connect(self.addresses(target), target.port, cutter)
        if target.scheme == "http":
            connection = http.client.HTTPConnection(target.host, target.port)
        else:
            context = tls_context()
            connection = http.client.HTTPSConnection(target.host, target.port, context=context)
            try:
                sock = context.wrap_socket(
                    sock, server_hostname=target.host, do_handshake_on_connect=False
                )
            except BaseException:
                sock.close()
                raise
            cutter.watch(sock)
        connection.sock = sock
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
        except BaseException:
            connection.close()
            raise
        return connection

    def addresses(self, target: Target) -> list[str]:
        """Resolve and check a host. A silent name server cannot block the caller.

        Raises:
            PrivateAddress: an address of the host is not public, and only public ones are allowed.
            TimeoutError: `is_over` became true.
            UnknownHost: the host has no address.
        """
        found: Future[list[str]] = Future()

        def look_up() -> None:
            try:
                found.set_result(resolved(target.host, target.port, self.resolve))
            except (OSError, ValueError) as error:
                found.set_exception(error)

        threading.Thread(target=look_up, name="resolve", daemon=True).start()
        while not wait([found], timeout=TICK_S).done:
            if self.is_over():
                raise TimeoutError(f"{target.host} was not resolved in time")
        try:
            addresses = found.result()
        except (OSError, ValueError):
            raise UnknownHost(target.host) from None
        if not addresses:
            raise UnknownHost(target.host)
        if not self.allow_private and not all(map(is_public, addresses)):
            raise PrivateAddress(target.host)
        return addresses[:MAX_ADDRESSES]

    def connect(self, addresses: list[str], port: int, cutter: _Cutter) -> socket.socket:
        """Connect to the first address that answers.

        Raises:
            OSError: no address answers.
        """
        *first, last = addresses
        for address in first:
            with contextlib.suppress(OSError):
                return self._connect_to(address, port, cutter)
        return self._connect_to(last, port, cutter)

    def _connect_to(self, address: str, port: int, cutter: _Cutter) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(min(self.silence_s(), CONNECT_TIMEOUT_S))
            cutter.watch(sock)
            sock.connect((address, port))
            sock.settimeout(self.silence_s())
        except BaseException:
            sock.close()
            raise
        return sock

    def _proxy(self, target: Target) -> str:
        """The URL of the proxy for a request; empty for none."""
        proxy = self._environment_proxy(target) if self.proxy is None else self.proxy
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        if proxy and not proxy.startswith(("http://", "https://")):
            raise UnsupportedProxy(target.host)
        return proxy

    def _environment_proxy(self, target: Target) -> str:
        if not self.use_proxies or proxy_bypass(target.host):
            return ""
        proxies = getproxies()
        return proxies.get(target.scheme) or proxies.get("all") or ""

    def _through_proxy(
        self, proxy: str, target: Target, cutter: _Cutter
    ) -> http.client.HTTPConnection:
        """Connect through a proxy. The proxy resolves the host by itself."""
        via = parse_target(proxy)
        timeout = min(self.silence_s(), CONNECT_TIMEOUT_S)
        connection: http.client.HTTPConnection
        if target.scheme == "http":
            connection = http.client.HTTPConnection(via.host, via.port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(
                via.host, via.port, timeout=timeout, context=tls_context()
            )
            connection.set_tunnel(target.host, target.port, headers=_proxy_headers(proxy))
        try:
            connection.connect()
            connection.sock.settimeout(self.silence_s())
            cutter.watch(connection.sock)
        except BaseException:
            connection.close()
            raise
        return connection


class _Cutter:
    """A thread that closes a connection when the request must end, at any time after its start."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self._sock: socket.socket | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-watch", daemon=True)

    def __enter__(self) -> _Cutter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def watch(self, sock: socket.socket) -> None:
        """Watch this socket from now on.

        Raises:
            TimeoutError: the request must end already.
        """
        self._sock = sock
        if self._is_over():
            raise TimeoutError("the request must end")

    def _run(self) -> None:
        while not self._done.wait(TICK_S):
            sock = self._sock
            if sock is not None and self._is_over():
                _cut(sock)


def _proxy_headers(proxy: str) -> dict[str, str]:
    authorization = basic_authorization(proxy)
    return {"Proxy-Authorization": authorization} if authorization else {}


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Trusts the authorities of the system, of certifi and of the operator.

    certifi is needed in slim containers, which have no authorities of their own.
    """
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    for variable in CA_BUNDLE_VARIABLES:
        bundle = os.environ.get(variable, "")
        with contextlib.suppress(OSError):
            if os.path.isdir(bundle):  # noqa: PTH112 (an empty path is not the current folder)
                context.load_verify_locations(capath=bundle)
            elif bundle:
                context.load_verify_locations(bundle)
    return context


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the connection has ended by itself
        # SSLSocket.shutdown would drop the TLS state while another thread reads from the socket.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
