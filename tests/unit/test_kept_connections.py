"""Connections to ComfyUI stay open, and a broken one is replaced where that is safe."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_worker.comfyui import kept_connections
from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.history import HistoryCleaner
from comfy_worker.comfyui.kept_connections import KeptConnections
from comfy_worker.deadline import Deadline
from comfy_worker.errors import ComfyUIUnavailable, JobTimedOut

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """A server that answers each request with the next of some bytes; empty bytes close."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                length = 0
                while (header := stream.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = stream.read(length)
                with self._lock:
                    self.requests.append(line.split()[1] + body)
                    answer = self._answer(len(self.requests))
                if answer is None:
                    time.sleep(2)
                    return
                if answer == b"":
                    return
                connection.sendall(answer)

    def close(self) -> None:
        # A thread that waits for a connection hears of the end by this only.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = []

    def start(answer: Callable[[int], bytes | None] = lambda _number: OK) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_requests_share_a_connection(serve: Callable[..., Server]) -> None:
    server = serve()
    client = ComfyUIClient(server.url)
    for _ in range(5):
        assert client.system_stats() == {}
    client.delete_history(["p"])
    client.close()
    assert server.connections == 1
    assert server.requests[-1] == b'/history{"delete": ["p"]}'


def test_threads_do_not_mix_their_answers(serve: Callable[..., Server]) -> None:
    def answer(number: int) -> bytes:
        body = json.dumps({"number": number}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    server = serve(answer)
    connections = KeptConnections(server.url)

    def request(_: int) -> int:
        found = connections.request("GET", "/x", timeout_s=30, is_repeatable=True)
        number = found.json()["number"]
        assert isinstance(number, int)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(request, range(80))) == list(range(1, 81))
    connections.close()
    assert server.connections <= 8


def test_a_connection_that_the_server_closed_is_replaced(serve: Callable[..., Server]) -> None:
    server = serve(lambda number: OK if number != 2 else b"")
    client = ComfyUIClient(server.url)
    assert client.system_stats() == {}
    assert client.system_stats() == {}, "the second request is sent again"
    client.close()
    assert server.connections == 2
    assert len(server.requests) == 3


def test_a_graph_is_posted_only_once(serve: Callable[..., Server]) -> None:
    server = serve(lambda number: OK if number != 2 else b"")
    client = ComfyUIClient(server.url)
    assert client.system_stats() == {}
    with pytest.raises(ComfyUIUnavailable, match=r"POST /prompt .*RemoteDisconnected"):
        client.queue_prompt({}, prompt_id="p", client_id="c")
    client.close()
    assert len(server.requests) == 2


def test_a_closed_connection_is_seen_before_use(serve: Callable[..., Server]) -> None:
    server = serve(lambda _number: OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    client = ComfyUIClient(server.url)
    for _ in range(2):
        client.queue_prompt({}, prompt_id="p", client_id="c")
    client.close()
    assert server.connections == 2


def test_a_closed_client_keeps_nothing(serve: Callable[..., Server]) -> None:
    server = serve()
    connections = KeptConnections(server.url)
    connections.close()
    for _ in range(2):
        assert connections.request("GET", "/x", timeout_s=30, is_repeatable=True).ok
    assert server.connections == 2
    assert not connections._idle


def test_an_idle_connection_grows_too_old(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_connections, "MAX_IDLE_S", 0.0)
    server = serve()
    client = ComfyUIClient(server.url)
    for _ in range(2):
        client.queue_prompt({}, prompt_id="p", client_id="c")
    client.close()
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (None, "TimeoutError"),
        (b"", "RemoteDisconnected"),
        (b"SSH-2.0-x\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "IncompleteRead|TimeoutError"),
    ],
)
def test_a_broken_answer_is_an_error(
    serve: Callable[..., Server], answer: bytes | None, name: str
) -> None:
    client = ComfyUIClient(serve(lambda _number: answer).url, timeout_s=0.5)
    with pytest.raises(ComfyUIUnavailable, match=name):
        client.system_stats()
    assert not client.answers()
    assert client.files_of_other_clients() is None
    client.close()


def test_a_body_without_json_is_an_error(serve: Callable[..., Server]) -> None:
    client = ComfyUIClient(serve().url)
    with pytest.raises(ComfyUIUnavailable, match="ValueError"):
        client.queue_prompt({"1": float("nan")}, prompt_id="p", client_id="c")


class Histories:
    """A client whose deletions wait for a signal, and fail as often as a test says."""

    def __init__(self, failures: int = 0) -> None:
        self.deleted: list[list[str]] = []
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        self._failures = failures

    def delete_history(self, prompt_ids: list[str]) -> None:
        self.has_begun.set()
        assert self.may_go_on.wait(30)
        if self._failures:
            self._failures -= 1
            raise ComfyUIUnavailable("ComfyUI answered HTTP 500 to POST /history")
        self.deleted.append(prompt_ids)


def cleaner_of(client: Any) -> HistoryCleaner:
    return HistoryCleaner(client, SimpleNamespace(failure=lambda: None))  # type: ignore[arg-type]


def test_prompts_share_a_deletion() -> None:
    client = Histories()
    cleaner = cleaner_of(client)
    cleaner.delete("a")
    assert client.has_begun.wait(30)
    cleaner.delete("b")
    cleaner.delete("c")
    with pytest.raises(JobTimedOut):
        cleaner.settle(Deadline(timeout_s=0.01))
    client.may_go_on.set()
    cleaner.settle(Deadline(timeout_s=30))
    cleaner.close()
    assert client.deleted == [["a"], ["b", "c"]]


@pytest.mark.parametrize(("failures", "expected"), [(2, [["a"]]), (99, [])])
def test_a_failed_deletion_is_repeated(failures: int, expected: list[list[str]]) -> None:
    client = Histories(failures)
    client.may_go_on.set()
    cleaner = cleaner_of(client)
    cleaner.delete("a")
    cleaner.settle(Deadline(timeout_s=30))
    cleaner.close()
    assert client.deleted == expected


def test_a_closed_cleaner_holds_nobody_up() -> None:
    client = Histories()
    cleaner = cleaner_of(client)
    cleaner.close()
    cleaner.delete("a")
    cleaner.settle(Deadline(timeout_s=30))
    assert client.deleted == []
