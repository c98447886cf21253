"""A server on loopback that speaks the hub's protocol: names a file's size and sha256, redirects to a storage.

What a repository is called says how it behaves, see :class:`_Handler`.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.file_server import ClosingServer, serving

__all__ = ["TOKEN", "HubServer", "Seen", "hub_server", "weights"]

TOKEN = "hf_let_me_in"
SLOW_BYTES = 10 << 20  # huggingface_hub writes in blocks of this size
COMMIT = "0" * 40


def weights(size: int = 100_000) -> bytes:
    """A safetensors file with one tensor of so many bytes."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return (
        struct.pack("<Q", len(header))
        + header
        + bytes(range(256)) * (size // 256)
        + bytes(size % 256)
    )


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    path: str
    range: str
    authorization: str


class HubServer(ClosingServer):
    """The server; ``files`` are by ``owner/repo/file``, all other paths are served from ``pages``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.pages: dict[str, bytes] = {}
        self.seen: list[Seen] = []
        self.times: Counter[str] = Counter()
        self.go_on = threading.Event()  # what is slow waits for it, after its first bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def served(self) -> list[Seen]:
        """The requests for the bytes of a file."""
        return [request for request in self.seen if request.method == "GET"]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever is cut off by the client is meant to be."""


class _Handler(BaseHTTPRequestHandler):
    """Repositories: gated, private, busy, long-busy, cut, endless-cut, slow, short, wrong; others are plain."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.server.seen.append(
            Seen(self.command, self.path, self.headers.get("Range", ""), authorization)
        )
        path = unquote(urlsplit(self.path).path)
        self.server.times[self.command + path] += 1
        if path.startswith("/storage/"):
            self._store(
                path.removeprefix("/storage/"), self.server.files[path.removeprefix("/storage/")]
            )
        elif "/resolve/" in path:
            self._resolve(path, authorization)
        elif path == "/away":
            self._head(302, location=unquote(urlsplit(self.path).query.removeprefix("to=")))
        elif path in self.server.pages:
            self._store(path, self.server.pages[path])
        else:
            self._head(404)

    def _resolve(self, path: str, authorization: str) -> None:
        repo, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        name, key, repo_name = f"{repo}/{file}", path, repo.partition("/")[2]
        if repo_name == "private":
            self._head(401, x_error_code="RepoNotFound")
        elif repo_name == "gated" and authorization != f"Bearer {TOKEN}":
            self._head(403 if authorization else 401, x_error_code="GatedRepo")
        elif repo_name in ("busy", "long-busy") and self.server.times["HEAD" + key] == 1:
            self._head(429, retry_after="1" if repo_name == "busy" else "3600")
        elif revision != "main":
            self._head(404, x_error_code="RevisionNotFound")
        elif name not in self.server.files:
            self._head(404, x_error_code="EntryNotFound")
        else:
            data = self.server.files[name]
            length = len(data) + (10 if repo_name == "short" else 0)
            sha256 = hashlib.sha256(data + b"!" * (repo_name == "wrong")).hexdigest()
            self._head(
                302,
                location=f"{self.server.url.replace('127.0.0.1', 'localhost')}/storage/{name}?Signature=hush",
                x_repo_commit=COMMIT,
                x_linked_etag=f'"{sha256}"',
                x_linked_size=str(length),
            )

    def _store(self, name: str, data: bytes) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin and begin >= len(data):
            self._head(416)
            return
        part = data[begin:]
        how = {"content_range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        if "gzip" in name:
            how["content_encoding"] = "gzip"
        self._head(
            206 if begin else 200,
            length=len(part),
            etag=f'"{hashlib.md5(data).hexdigest()}"',
            **how,
        )
        if self.command == "HEAD":
            return
        if "cut" in name and (not begin or "endless" in name):
            self.wfile.write(part[:SLOW_BYTES] if "endless" not in name else b"")
            self.close_connection = True
        elif "slow" in name or "stuck" in name:
            first = SLOW_BYTES if "slow" in name else len(part) // 2
            self.wfile.write(part[:first])
            while not (self.server.go_on.wait(0.05) or self.server.closing.is_set()):
                pass
            self.wfile.write(part[first:])
        else:
            self.wfile.write(part)

    def _head(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def hub_server() -> AbstractContextManager[HubServer]:
    """A server that speaks the hub's protocol, until its block ends."""
    return serving(HubServer())
