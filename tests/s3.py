"""A real S3 server in a process of its own, and a proxy before it that fails on purpose."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import requests
from botocore.config import Config
from pydantic import SecretStr

from comfy_worker.s3_location import Bucket

BUCKET = "pictures"
SECRET = "s3cret"

# What befalls a request, by its method and path: "" for nothing, or `refuse`, `cut`, `silent`, `slow`.
Fate = Callable[[str, str], str]


class FailingProxy(ThreadingHTTPServer):
    """Hands requests on to a server, but for those whose fate is another.

    Attributes:
        fate: what befalls a request.
        seen: method and path of each request, in order.
    """

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(url).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.fate: Fate = lambda _method, _path: ""
        self.seen: list[tuple[str, str]] = []
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FailingProxy

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""

    def _pass_on(self) -> None:
        path = urlsplit(self.path).path
        self.server.seen.append((self.command, path))
        fate = self.server.fate(self.command, path)
        length = int(self.headers.get("Content-Length") or 0)
        if fate == "cut":
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fate == "silent":
            self.server.closing.wait(30)
            self.close_connection = True
            return
        if fate == "slow":
            time.sleep(1.5)
        if fate == "refuse":
            self._answer(503, {}, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
            return
        with closing(http.client.HTTPConnection(self.server.upstream, timeout=30)) as upstream:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            self._answer(answer.status, dict(answer.headers), answer.read())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in (
                "connection",
                "content-length",
                "date",
                "server",
                "transfer-encoding",
            ):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Service:
    """The server behind its proxy.

    Attributes:
        proxy: through which the worker asks.
        client: boto3's, which asks the server itself.
    """

    def __init__(self, url: str, proxy: FailingProxy) -> None:
        self.proxy = proxy
        self.client = boto3.session.Session("AKIA", SECRET).client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        self.client.create_bucket(Bucket=BUCKET)

    def stored(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET)
        return [entry["Key"] for entry in listed.get("Contents", ())]

    def bucket(self, **changes: Any) -> Bucket:
        return Bucket(self.proxy.url, BUCKET, "AKIA", SecretStr(SECRET), **changes)


@contextmanager
def s3_service(log_path: Path) -> Iterator[Service]:
    """The server and its proxy; both end with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    proxy = FailingProxy(url)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        deadline_s = time.monotonic() + 30
        while not _answers(url):
            assert server.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline_s, log_path.read_text()
            time.sleep(0.1)
        yield Service(url, proxy)
    finally:
        proxy.closing.set()
        proxy.shutdown()
        proxy.server_close()
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False
