"""What follows from the version of ComfyUI: flags, routes, the cache, and the form of its log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_common.comfyui_log import plain_line
from comfy_common.container_memory import memory_limit_bytes
from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.launch import LaunchOptions, launch_flags
from comfy_worker.comfyui.model_memory import ModelMemory
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.comfyui.version import ComfyUIVersion

GB = 1e9
OLD = ("--disable-api-nodes", "--cache-lru", "--cache-ram")
NEW = (*OLD, "--disable-partner-nodes", "--disable-assets")


def comfyui_in(
    folder: Path, version: str, flags: tuple[str, ...], memory: str = ""
) -> ComfyUIVersion:
    (folder / "comfy").mkdir()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    lines = "".join(f'parser.add_argument(\n    "{flag}", type=int)\n' for flag in flags)
    (folder / "comfy/cli_args.py").write_text(lines)
    (folder / "comfy/model_management.py").write_text(memory)
    return ComfyUIVersion.in_folder(folder)


@pytest.mark.parametrize(
    ("name", "has_route"),
    [
        ("0.3.75", False),
        ("0.19.0", False),
        ("0.33.0", True),
        ("0.45.2", True),
        ("1.0", True),
        ("", False),
    ],
)
def test_versions_have_the_cancel_route(name: str, has_route: bool) -> None:
    assert ComfyUIVersion(name).has_cancel_route is has_route


def test_flags_are_those_that_comfyui_declares(tmp_path: Path) -> None:
    version = comfyui_in(tmp_path, "0.3.75", OLD)
    assert (version.name, version.flags) == ("0.3.75", frozenset(OLD))
    assert version.api_node_flags() == ["--disable-api-nodes"]
    assert version.asset_flags() == []


def test_a_newer_version_gets_its_own_flags(tmp_path: Path) -> None:
    version = comfyui_in(tmp_path, "0.45.2", NEW, "limit = open('/sys/fs/cgroup/memory.max')")
    flags = launch_flags(
        LaunchOptions(Path()), accelerator=True, version=version, memory_bytes=64 * GB
    )
    assert flags == ["--disable-partner-nodes", "--disable-assets", "--cache-ram", "6.4"]


def test_an_unknown_folder_gets_every_flag(tmp_path: Path) -> None:
    version = ComfyUIVersion.in_folder(tmp_path)
    assert version == ComfyUIVersion()
    assert version.has_flag("--anything")


def test_flags_that_are_gone_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    version = comfyui_in(tmp_path, "0.99.0", NEW)
    assert version.supported([("--cache-lru", "5"), ("--preview-size", "256")]) == [
        "--cache-lru",
        "5",
    ]
    assert "ComfyUI 0.99.0 does not have the flag --preview-size" in caplog.text


@pytest.mark.parametrize(
    ("memory_gb", "results"), [(1, "60"), (23, "60"), (64, "128"), (2000, "200")]
)
def test_the_cache_grows_with_the_containers_memory(memory_gb: float, results: str) -> None:
    assert ComfyUIVersion("0.33.0").cache_flags(memory_gb * GB) == ["--cache-lru", results]


@pytest.mark.parametrize(
    "arg", ["--cache-none", "--cache-ram", "--cache-classic", "--cache-lru=3", "--high-ram"]
)
def test_the_operators_cache_is_left_alone(arg: str) -> None:
    assert ComfyUIVersion("0.33.0").cache_flags(64 * GB, (arg,)) == []


@pytest.mark.parametrize(
    ("file", "text", "is_limit"),
    [
        ("memory.max", "1000000000\n", True),
        ("memory.max", "max\n", False),
        ("memory/memory.limit_in_bytes", "1000000000\n", True),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", False),
    ],
)
def test_the_limit_is_the_containers(tmp_path: Path, file: str, text: str, is_limit: bool) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    host_bytes = memory_limit_bytes(tmp_path / "none")
    assert memory_limit_bytes(tmp_path) == (GB if is_limit else host_bytes)


@pytest.mark.parametrize(
    "line",
    [
        "ValueError: x",
        "\x1b[32m[INFO]\x1b[0m ValueError: x",
        "\x1b[1m\x1b[33m[WARNING]\x1b[0m \x1b[31mValueError: x\x1b[0m",
        "[ERROR] ValueError: x",
    ],
)
def test_log_lines_lose_colours_and_levels(line: str) -> None:
    assert plain_line(line) == "ValueError: x"


def test_other_brackets_in_the_log_stay() -> None:
    assert plain_line("[Prompt Server] web root: /x") == "[Prompt Server] web root: /x"


def test_a_coloured_log_names_the_cause(tmp_path: Path) -> None:
    tag = r"\033[1m\033[31m[ERROR]\033[0m"
    (tmp_path / "main.py").write_text(f"print('{tag} ValueError: enough'); raise SystemExit(3)")
    process = ComfyUIProcess(LaunchOptions(tmp_path))
    try:
        process.start()
        assert process._child is not None
        process._child.wait(20)
        failure = process.failure()
    finally:
        process.stop()
    assert failure is not None
    assert "its log says 'ValueError: enough'" in failure.sentence


class Routes:
    """A server that answers the routes of one version, and keeps what it was asked."""

    def __init__(self, cancel_status: int) -> None:
        requests: list[tuple[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                requests.append((self.path, body))
                status = cancel_status if self.path.startswith("/api/jobs/") else 200
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self.requests = requests
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def routes(request: pytest.FixtureRequest) -> Iterator[Routes]:
    found = Routes(request.param)
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


FALLBACK = [("/queue", {"delete": ["p"]}), ("/interrupt", {"prompt_id": "p"})]


@pytest.mark.parametrize("routes", [200], indirect=True)
def test_a_cancel_is_one_request_where_possible(routes: Routes) -> None:
    client = ComfyUIClient(routes.url, has_cancel_route=True)
    client.cancel("p")
    client.close()
    assert routes.requests == [("/api/jobs/p/cancel", None)]


@pytest.mark.parametrize("routes", [200], indirect=True)
def test_an_old_comfyui_is_interrupted(routes: Routes) -> None:
    client = ComfyUIClient(routes.url)
    client.cancel("p")
    client.close()
    assert routes.requests == FALLBACK


@pytest.mark.parametrize("routes", [404, 405], indirect=True)
def test_a_route_that_is_gone_is_logged(routes: Routes, caplog: pytest.LogCaptureFixture) -> None:
    client = ComfyUIClient(routes.url, has_cancel_route=True)
    client.cancel("p")
    client.cancel("p")
    client.close()
    assert routes.requests == [("/api/jobs/p/cancel", None), *FALLBACK, *FALLBACK]
    assert caplog.text.count("does not have POST /api/jobs/{id}/cancel") == 1


class Memory:
    """A machine with 100 GB, of which a test says how much is free."""

    def __init__(self) -> None:
        self.free_gb = 90.0
        self.models = ModelMemory(100 * GB, lambda: self.free_gb * GB)

    def unloads(self, **sizes_gb: int) -> bool:
        unload = self.models.must_unload({name: int(size * GB) for name, size in sizes_gb.items()})
        self.models.workflow_ended()
        return unload


def test_models_that_fit_together_stay() -> None:
    memory = Memory()
    assert [memory.unloads(a=30), memory.unloads(b=30), memory.unloads(a=30)] == [False] * 3


def test_models_that_do_not_fit_are_unloaded_first() -> None:
    memory = Memory()
    assert not memory.unloads(a=30)
    assert not memory.unloads(b=30)
    assert memory.unloads(c=30)
    assert not memory.unloads(c=30, a=30), "b was unloaded"


def test_a_model_too_large_alone_is_not_unloaded() -> None:
    memory = Memory()
    assert [memory.unloads(a=90), memory.unloads(a=90)] == [False, False]


def test_results_that_pile_up_are_dropped() -> None:
    memory = Memory()
    memory.free_gb = 12
    assert not memory.unloads(a=1)
    memory.free_gb = 9
    assert not memory.unloads(a=1), "the model alone fills the memory"
    memory.free_gb = 5
    assert memory.unloads(a=1)
    assert not memory.unloads(a=1)
