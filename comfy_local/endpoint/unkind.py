"""Injects faults into the endpoint's answers to workers and to clients, for tests.

A worker must lose no job and no result because of a dropped connection, an outage, a proxy's HTML
page, or an entry that is not a job.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["HABITS", "Connections", "Unkind", "unkind_from"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTES = ("take", "done", "progress", "stream", "stop", "ping")
# Those of clients, by the part of the path that names them.
CLIENT_ROUTES = {"run": "/run", "status": "/status/", "cancel": "/cancel/"}
# Besides these a habit may be an HTTP status.
HABITS = ("drop", "hang", "html", "slow", "lost")
AT_RANDOM = ("drop", "html", "slow", "lost", 429, 500, 502, 503)
HANG_S = 3600.0
KEPT_POSTS = 50


class Connections:
    """The open connections of the server, by the client's address, so that one can be cut."""

    def __init__(self) -> None:
        self._open: dict[Any, asyncio.Transport] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """The server's HTTP protocol, which records its connections here."""
        opened = self._open

        class NotedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
            def connection_made(self, transport: asyncio.Transport) -> None:
                opened[transport.get_extra_info("peername")[:2]] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                opened.pop(self.transport.get_extra_info("peername")[:2], None)
                super().connection_lost(exc)

        return NotedProtocol

    def cut(self, client: Sequence[Any]) -> None:
        """Close a client's connection without an answer."""
        transport = self._open.pop(tuple(client)[:2], None)
        if transport is not None:
            transport.abort()


class Unkind:
    """The faults to inject; may be changed from any thread while the endpoint runs.

    A habit is an HTTP status to answer with, or one of: ``drop`` closes the connection; ``hang``
    never answers; ``html`` answers with a web page; ``slow`` answers late; ``lost`` handles the
    request and drops the answer.

    Args:
        habits: by route (``take``, ``done``, ``progress``, ``stream``, ``stop``, ``ping``; those
            of clients: ``run``, ``status``, ``cancel``), the habits for its next requests, in
            order.
        share: the share of workers' other requests that get a random habit, 0..1.
        seed: the seed of the random habits.
        slow_s: the delay of ``slow``, in seconds.

    Attributes:
        share: as above.
        client_share: the same for the requests of clients; 0 at the start.
        posted: the newest bodies from workers, each with its path.
    """

    def __init__(
        self,
        habits: Mapping[str, Sequence[str | int]] | None = None,
        *,
        share: float = 0.0,
        seed: int = 0,
        slow_s: float = 1.0,
    ) -> None:
        self._habits: dict[str, deque[str | int]] = {
            route: deque() for route in (*ROUTES, *CLIENT_ROUTES)
        }
        self._entries: deque[bytes] = deque()
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        self.share = share
        self.client_share = 0.0
        self._cut_until_s = 0.0
        self._slow_s = slow_s
        self.connections = Connections()
        self.posted: deque[tuple[str, bytes]] = deque(maxlen=KEPT_POSTS)
        for route, row in (habits or {}).items():
            self.expect(route, *row)

    def expect(self, route: str, *habits: str | int) -> None:
        """Set the habits for the next requests of a route."""
        for habit in habits:
            if not isinstance(habit, int) and habit not in HABITS:
                raise ValueError(
                    f"{habit!r} is not a habit; there are {', '.join(HABITS)} and HTTP statuses"
                )
        self._habits[route].extend(habits)

    def cut_off(self, seconds: float) -> None:
        """Drop every request of the workers for some time."""
        self._cut_until_s = time.monotonic() + seconds

    def hand_out(self, answer: Any) -> None:
        """Set the answer to the next request for jobs: bytes, or a value that is sent as JSON."""
        self._entries.append(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def left(self, route: str) -> int:
        """How many habits are left for a route."""
        return len(self._habits[route])

    def results_of(self, job_id: str) -> list[dict[str, Any]]:
        """The results of a job that workers posted, also those that got no answer."""
        bodies = [
            body
            for path, body in list(self.posted)
            if f"/{job_id}" in path and "/job-done/" in path
        ]
        return [json.loads(body) for body in bodies if not _is_progress(body)]

    def around(self, app: App) -> App:
        """Wrap the endpoint's application, so that requests may get a fault."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            route = next((name for name in ROUTES if _is_route(name, scope["path"])), None)
            if route is None:
                client_route = _client_route(scope["path"])
                habit = self._next(client_route) if client_route else None
                await self._meet(habit, app, scope, receive, send)
                return
            if time.monotonic() < self._cut_until_s:
                self.connections.cut(scope["client"])
                return
            body = await _body(receive) if route in ("done", "stream") else b""
            if body:
                self.posted.append((scope["path"], body))
            if route == "take" and self._entries:
                await _answer(send, 200, self._entries.popleft())
                return
            if route == "done" and _is_progress(body):
                route = "progress"
            habit = self._next(route)
            await self._meet(habit, app, scope, _again(body) if body else receive, send)

        return serve

    def _next(self, route: str) -> str | int | None:
        if self._habits[route]:
            return self._habits[route].popleft()
        share = self.client_share if route in CLIENT_ROUTES else self.share
        is_drawn = route != "ping" and self._random.random() < share
        return self._random.choice(AT_RANDOM) if is_drawn else None

    async def _meet(
        self, habit: str | int | None, app: App, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if habit is None:
            await app(scope, receive, send)
        elif isinstance(habit, int):
            await _answer(send, habit, b"{}")
        elif habit == "html":
            await _answer(
                send,
                200 if scope["method"] == "GET" else 502,
                b"<html>Bad gateway</html>",
                b"text/html",
            )
        elif habit == "slow":
            await asyncio.sleep(self._slow_s)
            await app(scope, receive, send)
        elif habit == "hang":
            await asyncio.sleep(HANG_S)
        else:
            if (
                habit == "lost" and scope["method"] == "POST"
            ):  # a job that was handed out would be lost too
                await app(scope, receive, _nowhere)
            self.connections.cut(scope["client"])


def unkind_from(text: str) -> Unkind | None:
    """Read the variable ``UNKIND``.

    Args:
        text: the share of requests that get a fault, 0..1; empty for none.

    Raises:
        ValueError: the text is not such a number.
    """
    if not text.strip():
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"UNKIND must be a number between 0 and 1, not {text!r}")
    return Unkind(share=share)


def _is_route(name: str, path: str) -> bool:
    marks = ("/ping/",) if name == "ping" else (f"/job-{name}/", f"/job-{name}-batch/")
    return any(mark in path for mark in marks)


def _client_route(path: str) -> str | None:
    for name, mark in CLIENT_ROUTES.items():
        if mark in path and (mark.endswith("/") or path.endswith(mark)):
            return name
    return None


def _is_progress(body: bytes) -> bool:
    return b'"status": "IN_PROGRESS"' in body[-100:] or b'"status": "IN_PROGRESS"' in body[:100]


async def _body(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes) -> Receive:
    """Lets the application read a body that was read already."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _nowhere(_message: Any) -> None:
    """Drops an answer."""


async def _answer(
    send: Send, status: int, body: bytes, media_type: bytes = b"application/json"
) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
