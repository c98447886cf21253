"""HTTP requests that follow redirects and connect to the very address that was checked.

A client may name a host whose address is public when it is looked up and private when it is
connected to (DNS rebinding). So a host is resolved once for each request, its addresses are checked,
and the connection goes to one of these addresses; the same at every redirect. Whoever must not reach
private addresses does not use proxies either: a proxy resolves names by itself. Standard library only.
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
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "comfy-worker", "Connection": "close"}
# What stays as it is in a path or query; "%" is among them, since a URL may be quoted already.
UNQUOTED = "!#$%&'()*+,/:;=?@[]~"
# Neither a host nor a user's name holds these; programs disagree about where a host with a backslash ends.
FORBIDDEN_IN_HOST = re.compile(r"[\x00-\x20\x7f\\]")
# Where an organisation's own authorities are named for programs that use requests or curl.
CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class RequestRefused(Exception):
    """A request that is not sent.

    Args:
        host: that the URL names, empty where it names none.
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
    """The proxy of the environment is one of SOCKS, which the standard library does not speak."""


class TooManyRedirects(RequestRefused):
    """The host redirects again and again."""


@dataclass(frozen=True)
class Target:
    """The parts of a URL that a request needs; host and path are ASCII."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The URL, without a fragment and without a user's name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Answer:
    """The answer to a request; its body is still to be read.

    Args:
        target: the URL that answered, after all redirects.
        response: status, headers and body.
    """

    target: Target
    response: http.client.HTTPResponse

    @property
    def location(self) -> str | None:
        """Where a redirect leads to, as it was sent; None where the answer is not a redirect."""
        if self.response.status not in REDIRECTS:
            return None
        location = self.response.headers.get("Location")
        if location is None:
            return None
        try:
            return location.encode("latin-1").decode("utf-8")  # http.client reads headers as Latin-1
        except UnicodeError:
            return location


def parse_target(url: str) -> Target:
    """Take a URL apart.

    Raises:
        InvalidURL: it cannot be read.
        UnsupportedScheme: it begins neither with http:// nor with https://.
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
    """The value of an Authorization header for the user and password in a URL; empty where it has none."""
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(words.encode()).decode("ascii")


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
        allow_private: whether addresses that are not public may be connected to.
        use_proxies: whether the proxies of the environment are used; only for what an operator asks for.
        is_over: whether the request must end now. Asked every 0.1 s by a thread of its own; then the connection is
            cut, so that a host that drips or is silent cannot hold the caller.
        silence_s: how long to wait for the next bytes.
        admit: gets each URL, redirects too, before its host is looked up; may raise to refuse it.
        resolve: as `socket.getaddrinfo`.
    """

    allow_private: bool = False
    use_proxies: bool = False
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
    ) -> Iterator[Answer]:
        """Send a request; the connection is closed when the block is left.

        Args:
            url: where to.
            headers: gives the headers for each URL, so that a token is not sent to the host of a redirect.
            method: GET or HEAD.
            follow: whether redirects are followed; else a redirect is the answer.

        Yields:
            The answer of the last URL, whatever its status is.

        Raises:
            RequestRefused: the request was not sent; which kind says why.
            OSError: the host could not be reached, or the connection broke off.
            http.client.HTTPException: the host does not speak HTTP.
        """
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_target(url)
            self.admit(target)
            with self._answered(target, method, {**HEADERS, **headers(target)}) as answer:
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
    def _answered(self, target: Target, method: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        proxy = self._proxy(target)
        with contextlib.ExitStack() as stack:
            cutter = stack.enter_context(_Cutter(self.is_over))
            connection = self._through_proxy(proxy, target, cutter) if proxy else self._direct(target, cutter)
            stack.callback(connection.close)
            path = target.path
            if proxy and target.scheme == "http":
                path = target.url
                headers = {**headers, **_proxy_headers(proxy)}
            connection.request(method, path, headers=dict(headers))
            response = stack.enter_context(connection.getresponse())
            if self.is_over():
                raise TimeoutError("the headers were cut off")  # http.client takes what came of them for all
            yield Answer(target, response)

    def _direct(self, target: Target, cutter: _Cutter) -> http.client.HTTPConnection:
        sock = self.connect(self._addresses(target), target.port, cutter)
        if target.scheme == "http":
            connection = http.client.HTTPConnection(target.host, target.port)
        else:
            context = tls_context()
            connection = http.client.HTTPSConnection(target.host, target.port, context=context)
            try:
                sock = context.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
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

    def _addresses(self, target: Target) -> list[str]:
        """The addresses of a host, looked up once and checked; a name server that is silent holds nobody."""
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
        """Connect to the first of these addresses that answers.

        Raises:
            OSError: none of them does.
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
        if not self.use_proxies or proxy_bypass(target.host):
            return ""
        proxies = getproxies()
        proxy = proxies.get(target.scheme) or proxies.get("all") or ""
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        if proxy and not proxy.startswith(("http://", "https://")):
            raise UnsupportedProxy(target.host)
        return proxy

    def _through_proxy(self, proxy: str, target: Target, cutter: _Cutter) -> http.client.HTTPConnection:
        """A connection by way of a proxy, which looks the host up by itself."""
        via = parse_target(proxy)
        timeout = min(self.silence_s(), CONNECT_TIMEOUT_S)
        connection: http.client.HTTPConnection
        if target.scheme == "http":
            connection = http.client.HTTPConnection(via.host, via.port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(via.host, via.port, timeout=timeout, context=tls_context())
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
    """A thread that cuts a connection once it must end, be it in the handshake, the headers or the body."""

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
            TimeoutError: the request must have ended already.
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
    """The system's authorities, those of certifi (a slim container has none of its own), and the operator's."""
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
    with contextlib.suppress(OSError):  # it has ended by itself
        # The shutdown of a TLS socket would drop its state while another thread reads from it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
