"""A proxy between the worker and ComfyUI that breaks requests on purpose.

The node pack ``faults`` moves ComfyUI to another port and writes this port to a file. The proxy
listens on the port that the worker uses, also after ComfyUI restarts.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

LIMIT_BYTES = 1 << 30


@dataclass
class Rule:
    """A fault for the requests of one route.

    Attributes:
        method: GET or POST.
        path: the beginning of the path.
        action: ``500``, ``hang``, ``cut`` (closes the connection without an answer), ``empty``
            (answers ``{}``), ``garbage`` (answers text that is not JSON), ``deliver-cut`` (passes
            the request on, then closes the connection without an answer).
        times: how many requests to break; later ones pass.
        seen: how many requests it has broken so far.
    """

    method: str
    path: str
    action: str
    times: int = 1 << 30
    seen: int = 0


class Proxy:
    """Runs the proxy; use it as a context manager.

    Attributes:
        requests: the number of requests by ``METHOD /path``, without ids.
        sockets_opened: how many websockets were opened so far.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: Counter[str] = Counter()
        self.sockets_opened = 0
        self._folder = folder
        self._rules: list[Rule] = []
        self._refuse_sockets = False
        self._deaf = False
        self._sockets: set[web.WebSocketResponse] = set()
        self._released = asyncio.Event()
        self._closing = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=[self._live()], daemon=True
        )

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._loop.close()

    @contextmanager
    def fault(self, method: str, path: str, action: str, times: int = 1 << 30) -> Iterator[Rule]:
        """Break a route for as long as the block lasts; requests that hang end with it."""
        rule = Rule(method, path, action, times)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)
            self._call(self._release())

    def cut_sockets(self) -> None:
        """Break every websocket that is open."""
        self._call(self._cut())

    @contextmanager
    def refusing_sockets(self) -> Iterator[None]:
        """Break every websocket and take no other while the block lasts."""
        self._refuse_sockets = True
        self.cut_sockets()
        try:
            yield
        finally:
            self._refuse_sockets = False

    @contextmanager
    def deaf_sockets(self) -> Iterator[None]:
        """Hand on nothing that ComfyUI says by websocket while the block lasts."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _cut(self) -> None:
        for socket in self._sockets:
            assert socket._req is not None
            _abort(socket._req)

    async def _live(self) -> None:
        """Stand before every ComfyUI that says where it listens."""
        runners: dict[Path, web.AppRunner] = {}
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout()
        ) as session:
            while not self._closing.is_set():
                for path in sorted(self._folder.glob("*.ports")):
                    if path not in runners:
                        runners[path] = await self._stand_before(
                            json.loads(path.read_text()), session
                        )
                await asyncio.sleep(0.02)
            await self._release()
            for runner in runners.values():
                await runner.cleanup()

    async def _stand_before(
        self, ports: dict[str, int], session: aiohttp.ClientSession
    ) -> web.AppRunner:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await self._serve(request, f"http://127.0.0.1:{ports['inside']}", session)

        app = web.Application(client_max_size=LIMIT_BYTES)
        app.router.add_route("*", "/{path:.*}", serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        with suppress(OSError):  # ComfyUI has ended, and another took the port
            await web.TCPSite(runner, "127.0.0.1", ports["outside"]).start()
        return runner

    async def _serve(
        self, request: web.Request, base: str, session: aiohttp.ClientSession
    ) -> web.StreamResponse:
        route = (
            request.path
            if request.path.count("/") < 2
            else request.path[: request.path.rindex("/")]
        )
        self.requests[f"{request.method} {route}"] += 1
        if request.path == "/ws":
            try:
                return await self._listen(request, base, session)
            except aiohttp.ClientError:
                return _abort(request)
        rule = next((rule for rule in self._rules if _meets(rule, request)), None)
        if rule is not None:
            rule.seen += 1
            if (answer := await self._broken(rule.action, request)) is not None:
                return answer
        try:
            async with session.request(
                request.method,
                base + request.path_qs,
                data=await request.read(),
                headers=_kept(request.headers),
            ) as answer_there:
                body = await answer_there.read()
        except aiohttp.ClientError:
            return _abort(request)
        if rule is not None and rule.action == "deliver-cut":
            return _abort(request)
        return web.Response(
            status=answer_there.status, body=body, headers=_kept(answer_there.headers)
        )

    async def _broken(self, action: str, request: web.Request) -> web.StreamResponse | None:
        match action:
            case "500":
                return web.Response(status=500, text="500 Internal Server Error")
            case "hang":
                await self._released.wait()
                return _abort(request)
            case "cut":
                return _abort(request)
            case "empty":
                return web.json_response({})
            case "garbage":
                return web.Response(text="<html>")
        return None

    async def _listen(
        self, request: web.Request, base: str, session: aiohttp.ClientSession
    ) -> web.StreamResponse:
        if self._refuse_sockets:
            return _abort(request)
        outside = web.WebSocketResponse(max_msg_size=0)
        async with session.ws_connect(base + request.path_qs, max_msg_size=0) as inside:
            await outside.prepare(request)
            self.sockets_opened += 1
            self._sockets.add(outside)
            pumps = [
                asyncio.create_task(self._pump(outside, inside)),
                asyncio.create_task(self._pump(inside, outside, heard=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._sockets.discard(outside)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        return outside

    async def _pump(self, source: Any, target: Any, *, heard: bool = False) -> None:
        async for message in source:
            if heard and self._deaf:
                continue
            with suppress(ConnectionError):
                if message.type is WSMsgType.TEXT:
                    await target.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await target.send_bytes(message.data)


def _meets(rule: Rule, request: web.Request) -> bool:
    return (
        rule.seen < rule.times
        and rule.method == request.method
        and request.path.startswith(rule.path)
    )


def _kept(headers: Any) -> dict[str, str]:
    dropped = {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "content-encoding",
    }
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
