"""How many pictures a minute, beside ComfyUI alone. Run it as ``python -m benchmarks.throughput``.

ComfyUI alone gets the same graphs in a row through ``POST /prompt``, without a node that saves. The
ratio is the worker's time divided by that of ComfyUI.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.graphs import flat, from_checkpoint, without_saving
from benchmarks.report import Row, make_parser, report, row_of
from benchmarks.sides import OURS, PEER, Side, model_folder, started

POLL_S = 0.002
GRAPHS: dict[str, Callable[[], dict[str, Any]]] = {
    "beside ComfyUI alone: 64x64": flat,
    "beside ComfyUI alone: 1024 PNG": partial(from_checkpoint, 1024),
}


def main() -> int:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=16, help="how many jobs wait at once")
    options = parser.parse_args()
    rows = asyncio.run(measure(GRAPHS, model_folder(), options.rounds, options.jobs))
    report("throughput (peer: ComfyUI alone)", rows, options.json)
    return 0


async def measure(
    graphs: dict[str, Callable[[], dict[str, Any]]], models: Path, rounds: int, jobs: int
) -> list[Row]:
    """Run the same graphs through the worker and through its ComfyUI alone, in turns."""
    rows = []
    async with started(OURS, models, None) as side:
        await side.api.run([flat()], at_once=True)
        for name, make in graphs.items():
            await side.api.run([make()], at_once=True)  # loads the model
            times: dict[str, list[float]] = {OURS: [], PEER: []}
            for _ in range(rounds):
                taken = await side.api.run([make() for _ in range(jobs)], at_once=True)
                times[OURS].append(taken.job_ms)
                times[PEER].append(await _alone_ms(side, [make() for _ in range(jobs)]))
            rows.append(row_of(name, times))
    return rows


async def _alone_ms(side: Side, jobs: list[dict[str, Any]]) -> float:
    """Queue graphs in ComfyUI itself; the milliseconds of each until the last one is done."""
    url = side.comfyui_url()
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        for job in jobs:
            body = {"prompt": without_saving(job)["workflow"], "client_id": "alone"}
            async with session.post(f"{url}/prompt", json=body) as answer:
                if answer.status != 200:
                    raise SystemExit(f"ComfyUI refused a graph: {await answer.text()}")
        left = 1
        while left:
            await asyncio.sleep(POLL_S)
            async with session.get(f"{url}/prompt") as answer:
                left = (await answer.json())["exec_info"]["queue_remaining"]
        elapsed_ms = (time.perf_counter() - began) * 1000 / len(jobs)
        async with session.post(f"{url}/history", json={"clear": True}):
            return elapsed_ms


if __name__ == "__main__":
    sys.exit(main())
