"""Eight pictures from a slow host, beside one. Run it as ``python -m benchmarks.urls``.

The host takes half a second for each picture. Eight that are fetched at the same time take hardly
longer than one. The ratio is the time of eight divided by the time of one.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from benchmarks.graphs import edit_of_urls, photo
from benchmarks.report import Row, make_parser, report, row_of
from benchmarks.sides import OURS, PEER, model_folder, started
from benchmarks.slow_server import SlowServer

DELAY_S = 0.5
COUNT = 8
SIZE = 256


def main() -> int:
    """Measure and report."""
    options = make_parser(__doc__).parse_args()
    rows = asyncio.run(_measure(options.rounds, model_folder()))
    report(f"urls (ours: {COUNT} pictures, peer: one picture)", rows, options.json)
    return 0


async def _measure(rounds: int, models: Path) -> list[Row]:
    async with (
        SlowServer(DELAY_S, _picture) as host,
        started(OURS, models, None, {"ALLOW_PRIVATE_URLS": "true"}) as side,
    ):
        times: dict[str, list[float]] = {OURS: [], PEER: []}
        for turn in range(rounds + 1):
            for name, count in ((OURS, COUNT), (PEER, 1)):
                urls = [f"{host.url}/{turn}/{number}.png" for number in range(count)]
                taken = await side.api.run([edit_of_urls(urls)], at_once=True)
                if turn:
                    times[name].append(taken.worker_ms[0])
    return [row_of(f"{COUNT} pictures from a host of {DELAY_S:g} s a picture", times)]


async def _picture(_request: web.Request) -> web.Response:
    return web.Response(body=photo(SIZE), content_type="image/png")


if __name__ == "__main__":
    sys.exit(main())
