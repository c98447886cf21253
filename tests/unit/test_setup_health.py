"""The container's health check: finds ComfyUI by its command line, and asks it."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from comfy_setup.health import comfyui_port, healthy


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Processes: one that is no ComfyUI, one that ended while it was looked at, files that are no processes."""
    for pid, words in {
        "1": ["tini", "--", "python"],
        "7": ["python", "handler.py", "--port", "1"],
    }.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(b"\0".join(word.encode() for word in words))
    (tmp_path / "8" / "cmdline").mkdir(parents=True)  # reading it fails
    (tmp_path / "net").mkdir()
    return tmp_path


def test_its_port_stands_on_its_command_line(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert comfyui_port(proc) is None
    (proc / "9").mkdir()
    (proc / "9" / "cmdline").write_bytes(
        b"python\0main.py\0--listen\x00127.0.0.1\0--port\x008188\0"
    )
    assert comfyui_port(proc) == 8188
    monkeypatch.setattr(os, "getuid", lambda: -1)  # someone else's is none of ours
    assert comfyui_port(proc) is None


class Stats(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/system_stats" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("status", "expected"), [(200, True), (500, False)])
def test_it_is_healthy_while_it_answers(
    status: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stats, "status", status)
    with HTTPServer(("127.0.0.1", 0), Stats) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert healthy(server.server_port) is expected
        thread.join()
    assert not healthy(server.server_port)


def test_no_comfyui_is_not_healthy() -> None:
    assert not healthy(None)
