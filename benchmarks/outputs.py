"""Eight outputs to storage that is slow, beside one. Run it as ``python -m benchmarks.outputs``.

The storage takes half a second for each file. Eight files that are uploaded at the same time take
hardly longer than one. The ratio is the time of eight divided by the time of one.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.graphs import flat_batch
from benchmarks.report import Row, make_parser, report, row_of
from benchmarks.sides import OURS, PEER, model_folder, started
from benchmarks.slow_server import SlowServer

DELAY_S = 0.5
COUNT = 8


def main() -> int:
    """Measure and report."""
    options = make_parser(__doc__).parse_args()
    rows = asyncio.run(_measure(options.rounds, model_folder()))
    report(f"outputs (ours: {COUNT} files, peer: one file)", rows, options.json)
    return 0


async def _measure(rounds: int, models: Path) -> list[Row]:
    async with SlowServer(DELAY_S, _store) as storage:
        environ = {
            "BUCKET_ENDPOINT_URL": storage.url,
            "BUCKET_NAME": "bucket",
            "BUCKET_ACCESS_KEY_ID": "none",
            "BUCKET_SECRET_ACCESS_KEY": "none",
            "MAX_BATCH_SIZE": str(COUNT),
        }
        async with started(OURS, models, None, environ) as side:
            times: dict[str, list[float]] = {OURS: [], PEER: []}
            for turn in range(rounds + 1):
                for name, count in ((OURS, COUNT), (PEER, 1)):
                    taken = await side.api.run([flat_batch(count)], at_once=True)
                    if turn:
                        times[name].append(taken.worker_ms[0])
    return [row_of(f"{COUNT} files to a storage of {DELAY_S:g} s a file", times)]


async def _store(request: web.Request) -> web.Response:
    """Take a file, as S3 does."""
    await request.read()
    headers: dict[str, Any] = {"ETag": '"0"'}
    return web.Response(headers=headers)


if __name__ == "__main__":
    sys.exit(main())
