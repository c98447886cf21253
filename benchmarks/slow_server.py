"""An HTTP server that answers every request after a pause, as a distant host does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from aiohttp import web

__all__ = ["SlowServer"]

Answer = Callable[[web.Request], Awaitable[web.Response]]


class SlowServer:
    """Listens on loopback while the block lasts.

    Args:
        delay_s: the pause before each answer.
        answer: makes the answers.

    Attributes:
        url: of its root.
    """

    def __init__(self, delay_s: float, answer: Answer) -> None:
        self._delay_s = delay_s
        self._answer = answer
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> SlowServer:
        app = web.Application(client_max_size=1_000_000_000)
        app.router.add_route("*", "/{path:.*}", self._respond)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _respond(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self._delay_s)
        return await self._answer(request)
