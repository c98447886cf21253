"""Whether a Git server answers, found out within seconds, through the proxy that Git would use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from comfy_setup import network
from comfy_setup.network import proxy_for, why_unreachable


class Answering(BaseHTTPRequestHandler):
    """Refuses whatever it is asked, and keeps what that was."""

    requested: list[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        self.send_error(403)

    def do_CONNECT(self) -> None:
        self.requested.append(self.path)
        self.send_error(502)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server() -> Iterator[tuple[str, list[str]]]:
    """A server's URL, and the paths that it was asked for."""
    handler = type("Handler", (Answering,), {"requested": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", handler.requested
        http.shutdown()


def test_a_server_that_answers_is_reachable() -> None:
    with server() as (url, requested):
        assert why_unreachable(f"{url}/a/b/") == ""
        assert requested == ["/a/b/info/refs?service=git-upload-pack"]


def test_closed_ports_and_unknown_names_are_unreachable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "refused" in why_unreachable(f"http://127.0.0.1:{closed.getsockname()[1]}/a")
    assert why_unreachable("https://github.invalid/a") != ""
    assert why_unreachable("https://[broken/a") != ""


def test_a_silent_server_takes_no_extra_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert why_unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/a", within_s=0.5) != ""
        assert time.monotonic() - began < 40


def test_a_hanging_lookup_takes_no_extra_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(network, "_ask", lambda *_: str(over.wait(30)))
    assert why_unreachable("https://example.org/a", within_s=0.1) == "no answer within 0.1 s"
    over.set()


def test_a_proxy_is_asked_for_the_way() -> None:
    with server() as (url, requested):
        assert "502" in why_unreachable("https://github.invalid/a", proxy=url)
        assert requested == ["github.invalid:443"]


def test_unknown_protocols_are_left_to_git() -> None:
    assert why_unreachable("https://github.invalid/a", proxy="socks5h://127.0.0.1:9") == ""
    assert why_unreachable("git@github.invalid:a") == why_unreachable("file:///nowhere") == ""


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1"}, ""),
        ({"ALL_PROXY": "socks5://p:1"}, "socks5://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.org, .github.com"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "hub.com"}, "http://p:1"),
    ],
)
def test_the_environment_names_the_proxy(environ: dict[str, str], proxy: str) -> None:
    assert proxy_for("https://github.com/a", environ) == proxy
