"""A server of files on loopback, some of them hostile."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests import clips, pictures

__all__ = ["ClosingServer", "FileServer", "file_server", "serving"]

FILES = {
    "/photo.png": pictures.file(pictures.photo()),
    "/photo": pictures.file(pictures.photo(), "JPEG"),
    "/input-image.jpg": pictures.file(pictures.photo(), "JPEG"),
    "/canny-image.jpg": pictures.file(pictures.photo(), "JPEG"),
    "/a b/ö.png": pictures.file(pictures.photo()),
    "/text.png": b"just text",
    "/bomb.png": pictures.bomb(),
    "/cut.png": pictures.file(pictures.photo((256, 256)))[:400],
    "/clip.mp4": clips.video(),
    "/tone.flac": clips.sound(),
}
CHUNK = bytes(1 << 16)


class ClosingServer(ThreadingHTTPServer):
    """A server whose answers that never end see that it is to end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.closing = threading.Event()


Server = TypeVar("Server", bound=ClosingServer)


class FileServer(ClosingServer):
    """The server.

    Attributes:
        seen: the requested paths, with their queries.
        together: where requests for ``/together.png`` wait for each other.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[str] = []
        self.together = threading.Barrier(1)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever is cut off by the client is meant to be."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if path in FILES:
            self._head(200, length=len(FILES[path]))
            self.wfile.write(FILES[path])
        elif path == "/together.png":
            self.server.together.wait()
            self._head(200, length=len(FILES["/photo.png"]))
            self.wfile.write(FILES["/photo.png"])
        elif path == "/large":
            self._head(200, length=200_000_000)
            self._for_ever(CHUNK, 0)
        elif path == "/endless":
            self._head(200)
            self._for_ever(CHUNK, 0)
        elif path == "/chunked":
            self._head(200, transfer_encoding="chunked")
            self._for_ever(b"10000\r\n" + CHUNK + b"\r\n", 0)
        elif path == "/drip":
            self._head(200, length=1000)
            self._for_ever(b"x", 0.2)
        elif path == "/drip-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            self._for_ever(b"x", 0.2)
        elif path == "/silent":
            self.server.closing.wait()
        elif path == "/short":
            self._head(200, length=1000)
            self.wfile.write(b"x" * 10)
        elif path == "/gzip":
            body = gzip.compress(bytes(50_000_000))
            self._head(200, length=len(body), content_encoding="gzip")
            self.wfile.write(body)
        elif path == "/redirect":
            self._head(302, location=query["to"][0])
        elif path == "/loop":
            self._head(301, location="/loop")
        else:
            self._head(404)

    def _head(self, status: int, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _for_ever(self, data: bytes, pause_s: float) -> None:
        while not self.server.closing.wait(pause_s):
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """A server that ends with the block, whatever it is in the middle of."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def file_server() -> AbstractContextManager[FileServer]:
    """A server of files, until its block ends."""
    return serving(FileServer())
