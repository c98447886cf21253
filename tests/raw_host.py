"""A host on loopback that answers with whatever bytes a test hands it: lies, endless bodies, drips."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

__all__ = ["RawHost", "http", "raw_host"]


def http(head: str, body: bytes = b"") -> bytes:
    """An answer: status and headers parted by ``|``, then the body."""
    return b"HTTP/1.1 " + head.replace("|", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


class RawHost:
    """The host; ``requests`` are the heads that came in, ``heads`` the same by connection.

    Args:
        answer: gets each connection once its request has come, and the path that was requested.
    """

    def __init__(self, answer: Callable[[RawHost, socket.socket, str], None]) -> None:
        self.requests: list[str] = []
        self.heads: dict[socket.socket, str] = {}
        self.sent = 0
        self.over = threading.Event()
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port = int(self._listening.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def send(
        self, connection: socket.socket, block: bytes, times: int = 1, pause_s: float = 0.0
    ) -> None:
        """Send a block again and again, until the test is over."""
        for _ in range(times):
            if self.over.wait(pause_s) if pause_s else self.over.is_set():
                return
            connection.sendall(block)
            self.sent += len(block)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            self.heads[connection] = head.decode("latin-1")
            self.requests.append(self.heads[connection])
            self._answer(self, connection, head.split(b" ")[1].decode("latin-1"))


@contextlib.contextmanager
def raw_host(answer: bytes | Callable[[RawHost, socket.socket, str], None]) -> Iterator[RawHost]:
    """A host that answers each request with these bytes, or as a function does."""

    def send_bytes(_host: RawHost, connection: socket.socket, _path: str) -> None:
        assert isinstance(answer, bytes)
        connection.sendall(answer)

    host = RawHost(send_bytes if isinstance(answer, bytes) else answer)
    try:
        yield host
    finally:
        host.close()
