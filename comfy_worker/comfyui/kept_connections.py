"""Sends requests to a server on loopback over connections that stay open.

``requests`` takes a millisecond of processor time for each, which is most of what a small job's
requests cost. Here nothing is read from the environment: a proxy is for the internet.
"""

from __future__ import annotations

import json
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "KeptConnections"]

MAX_KEPT = 16
# aiohttp, ComfyUI's server, closes a connection that was idle for 75 s, and some versions 15 s.
MAX_IDLE_S = 10.0


@dataclass(frozen=True)
class Answer:
    """An answer of the server, read to its end.

    Attributes:
        method: the request's.
        route: the request's, with its query.
        status: the HTTP status.
        body: as it came.
    """

    method: str
    route: str
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is none of an error."""
        return self.status < 400

    def json(self) -> Any:
        """Decode the body.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.body)


class KeptConnections:
    """The connections to one server; may be shared by threads.

    Args:
        base_url: ``http://127.0.0.1:<port>``.
    """

    def __init__(self, base_url: str) -> None:
        address = urlsplit(base_url)
        self._host = address.hostname or "127.0.0.1"
        self._port = address.port or 80
        # Each with the time when it was last used; the last one is taken first.
        self._idle: deque[tuple[HTTPConnection, float]] = deque()
        self._is_closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections, those in use after their request; later ones are not kept."""
        with self._lock:
            self._is_closed = True
            idle = list(self._idle)
            self._idle.clear()
        for connection, _used_at in idle:
            connection.close()

    def request(
        self, method: str, route: str, body: Any = None, *, timeout_s: float, is_repeatable: bool
    ) -> Answer:
        """Send a request and read the answer.

        Args:
            method: ``GET`` or ``POST``.
            route: the path.
            body: sent as JSON; None: no body.
            timeout_s: how long each step may take: the connection, and each part of the answer.
            is_repeatable: whether the server may get the request twice. If it closes a kept
                connection in place of an answer, the request is sent once more over a new one.

        Raises:
            OSError: no connection, or it broke, or the time is over.
            HTTPException: what came is not HTTP.
            ValueError: JSON cannot express the body.
        """
        headers, data = {}, None
        if body is not None:
            data = json.dumps(body, allow_nan=False).encode()
            headers["Content-Type"] = "application/json"
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, (method, route, data, headers), timeout_s)
            except (ConnectionError, HTTPException):
                if not is_repeatable:
                    raise
        fresh = HTTPConnection(self._host, self._port, timeout=timeout_s)
        return self._exchange(fresh, (method, route, data, headers), timeout_s)

    def _exchange(
        self,
        connection: HTTPConnection,
        request: tuple[str, str, bytes | None, dict[str, str]],
        timeout_s: float,
    ) -> Answer:
        method, route, data, headers = request
        is_whole = False
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.request(method, route, data, headers)
            response = connection.getresponse()
            answer = Answer(method, route, response.status, response.read())
            is_whole = not response.will_close
        finally:
            if not is_whole:
                connection.close()
        self._keep(connection)
        return answer

    def _take(self) -> HTTPConnection | None:
        """Take a kept connection that is still open."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, used_at = self._idle.pop()
            if time.monotonic() - used_at < MAX_IDLE_S and not _has_input(connection):
                return connection
            connection.close()

    def _keep(self, connection: HTTPConnection) -> None:
        if connection.sock is None:
            return
        with self._lock:
            if len(self._idle) < MAX_KEPT and not self._is_closed:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()


def _has_input(connection: HTTPConnection) -> bool:
    """Return whether an idle connection was closed by the server, or holds what nobody reads."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
