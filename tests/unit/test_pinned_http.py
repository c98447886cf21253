"""Requests go to the address that was checked, and end when they must."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import Any

import pytest

from comfy_common.pinned_http import (
    InvalidURL,
    PinnedClient,
    PrivateAddress,
    TooManyRedirects,
    UnknownHost,
    UnsupportedProxy,
    UnsupportedScheme,
    parse_target,
)
from tests.raw_host import RawHost, raw_host
from tests.raw_host import http as answer_of

PUBLIC = "93.184.216.34"


class Rebinding:
    """A name server that gives a public address first and this machine's afterwards."""

    def __init__(self) -> None:
        self.lookups = 0

    def __call__(self, host: str, port: int, **_options: Any) -> list[Any]:
        self.lookups += 1
        return [(0, 0, 0, "", (PUBLIC if self.lookups == 1 else "127.0.0.1", port))]


def read(client: PinnedClient, url: str) -> bytes:
    with client.open(url) as answer:
        return answer.response.read()


def test_a_rebound_name_does_not_lead_here(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = []

    def connect(sock: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    names = Rebinding()
    with pytest.raises(ConnectionRefusedError):
        read(PinnedClient(resolve=names), "http://rebind.example/a")
    assert (connected, names.lookups) == ([PUBLIC], 1)


def test_a_redirect_to_a_rebound_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = PinnedClient.connect

    def connect_here(
        client: PinnedClient, addresses: list[str], port: int, cutter: Any
    ) -> socket.socket:
        assert addresses == [PUBLIC]
        return connect(client, ["127.0.0.1"], port, cutter)

    monkeypatch.setattr(PinnedClient, "connect", connect_here)
    with raw_host(
        answer_of("302 Found|Location: http://rebind.example/b|Content-Length: 0")
    ) as host:
        with pytest.raises(PrivateAddress):
            read(PinnedClient(resolve=Rebinding()), f"http://rebind.example:{host.port}/a")
        assert len(host.requests) == 1


def test_the_request_names_the_original_host() -> None:
    with raw_host(answer_of("200 OK|Content-Length: 2", b"ok")) as host:
        client = PinnedClient(
            allow_private=True, resolve=lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", host.port))]
        )
        assert read(client, f"http://pictures.example:{host.port}/a b?c=d e") == b"ok"
        assert host.requests[0].startswith("GET /a%20b?c=d%20e HTTP/1.1\r\n")
        assert f"Host: pictures.example:{host.port}\r\n" in host.requests[0]


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://", InvalidURL),
        ("http://a:b:c/", InvalidURL),
        ("http://[::1", InvalidURL),
        ("http://a:99999/", InvalidURL),
        ("http://good.example\\@evil.example/", InvalidURL),
        ("http://a b/", InvalidURL),
        ("http://a\x00b/", InvalidURL),
        ("http://\udcff.example/", InvalidURL),
        ("http://a/\ud800", InvalidURL),
        ("file:///etc/passwd", UnsupportedScheme),
        ("hf:owner/repo/file", UnsupportedScheme),
    ],
)
def test_what_is_not_a_url_is_refused(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_target(url)


def test_a_non_ascii_host_is_resolved_by_idna() -> None:
    assert parse_target("https://bücher.example/ö").host == "xn--bcher-kva.example"
    assert parse_target("https://bücher.example/ö").path == "/%C3%B6"


def test_a_host_without_address_is_unknown() -> None:
    with pytest.raises(UnknownHost):
        read(PinnedClient(resolve=lambda *_, **__: []), "http://nowhere.example/")


def test_a_redirect_for_ever_ends() -> None:
    again = answer_of("302 Found|Location: /again|Content-Length: 0")
    with raw_host(again) as host, pytest.raises(TooManyRedirects):
        read(PinnedClient(allow_private=True), host.url)


@pytest.mark.parametrize(
    "bytes_first", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_silent_host_is_cut_off(bytes_first: bytes) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        host.send(connection, bytes_first)
        host.over.wait(10)

    over = threading.Event()
    threading.Timer(0.3, over.set).start()
    with raw_host(answer) as host, pytest.raises((OSError, http.client.HTTPException)):
        read(PinnedClient(allow_private=True, is_over=over.is_set), host.url)


def test_a_silent_name_server_holds_nobody() -> None:
    over, go_on = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[Any]:
        go_on.wait(60)
        return []

    threading.Timer(0.2, over.set).start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        read(PinnedClient(resolve=silent, is_over=over.is_set), "http://slow.example/")
    go_on.set()
    assert time.monotonic() - began < 40


def test_an_operator_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_host(answer_of("200 OK|Content-Length: 2", b"ok")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:word@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        assert read(PinnedClient(use_proxies=True), "http://models.example/a") == b"ok"
        assert proxy.requests[0].startswith("GET http://models.example:80/a HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic bWU6d29yZA==" in proxy.requests[0]


def test_a_client_does_not_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_host(answer_of("200 OK|Content-Length: 2", b"ok")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UnknownHost):
            read(PinnedClient(resolve=lambda *_, **__: []), "http://models.example/a")
        assert proxy.requests == []


def test_https_asks_the_proxy_for_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_host(answer_of("403 Forbidden|Content-Length: 0")) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(OSError, match="403"):
            read(PinnedClient(use_proxies=True), "https://models.example/a")
        assert proxy.requests[0].startswith("CONNECT models.example:443 HTTP/1.")


def test_a_proxy_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UnsupportedProxy):
        read(PinnedClient(use_proxies=True), "https://models.example/a")
