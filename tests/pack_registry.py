"""A server that speaks the protocol of the ComfyUI registry, and has ComfyUI-Manager's lists."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

__all__ = ["Registry", "registry"]


class Registry(HTTPServer):
    """Answers with what was published, and 404 to everything else.

    Attributes:
        answers: status and body by path; a path without a query answers all queries.
        seen: the requested paths.
        missing: how many bytes less are sent than announced.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.seen: list[str] = []
        self.missing = 0

    def answer(self, path: str, value: Any, status: int = 200) -> None:
        """Answer a path with JSON."""
        self.answers[path] = (status, json.dumps(value).encode())

    def publish(self, name: str, version: str, files: Mapping[str, str], **entries: Any) -> str:
        """Publish a version of a pack with these files; the last one is the newest.

        Args:
            name: of the pack.
            version: of the pack.
            files: by path, the text.
            entries: further entries of the version; `repository` and `classes` are the pack's.

        Returns:
            Its line in custom_nodes.txt.
        """
        repository = entries.pop("repository", "")
        classes: Sequence[str] = entries.pop("classes", ())
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as made:
            for path, text in files.items():
                made.writestr(path, text)
        self.answers[f"/storage/{name}.zip"] = (200, archive.getvalue())
        release = {"version": version, "status": "NodeVersionStatusActive", "dependencies": []}
        release |= {"downloadUrl": f"{self.url}/storage/{name}.zip", **entries}
        self.answer(f"/nodes/{name}/install?version={version}", release)
        _, former = self.answers.get(f"/nodes/{name}/versions", (200, b"[]"))
        self.answer(f"/nodes/{name}/versions", [release, *json.loads(former)])
        pack = {"id": name, "repository": repository, "latest_version": release}
        self.answer(f"/nodes/{name}", pack)
        for class_type in classes:
            self.answer(f"/comfy-nodes/{class_type}/node", pack)
        return f"{name}@{version}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        answers = self.server.answers
        unknown = (404, b'{"message": "Node not found"}')
        status, body = answers.get(self.path) or answers.get(self.path.partition("?")[0], unknown)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + self.server.missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that runs until the test ends."""
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
