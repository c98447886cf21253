"""The handler's peak memory for large results. Run it as ``python -m benchmarks.memory``.

A result whose pictures have 20 MB is compared with the peer's, after a first one that makes both
import what they need. A file of 2 GB, without storage, must be refused with little memory: its size
is known before anything is read. Memory is resident memory in MB above what the handler held before
the job.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psutil

from benchmarks.graphs import flat, from_checkpoint, with_batch
from benchmarks.report import Row, make_parser, report, row_of
from benchmarks.runpod_api import JobFailed
from benchmarks.sides import OURS, Side, both_sides, model_folder

LOOK_S = 0.005
LARGE_BYTES = 2_000_000_000


def main() -> int:
    """Measure and report."""
    options = make_parser(__doc__).parse_args()
    rows = asyncio.run(_measure(options.peer, options.rounds, model_folder()))
    report("memory", rows, options.json, unit="MB above idle")
    return 0


async def _measure(peer: Path | None, rounds: int, models: Path) -> list[Row]:
    result_mb: dict[str, list[float]] = {}
    limit = {"RESULT_LIMIT_MB": "60", "MAX_BATCH_SIZE": "1000"}
    async with both_sides(models, peer, limit) as sides:
        for side in sides.values():
            await side.api.run([flat(), _large_result()], at_once=False)
        for _ in range(rounds):
            for name, side in sides.items():
                result_mb.setdefault(name, []).append(await _peak_mb(side, _large_result()))
        refused_mb = await _refused_mb(sides[OURS])
    rows = [row_of("a result of 20 MB", result_mb)]
    rows.append(row_of("a result of 2 GB, refused", {OURS: [refused_mb]}))
    return rows


def _large_result() -> dict[str, Any]:
    """Pictures of 20 MB together, 27 MB as base64."""
    return with_batch(from_checkpoint(), 28)


async def _refused_mb(side: Side) -> float:
    """Peak memory of a job that saves more than 2 GB and is answered with an error."""
    try:
        await _peak_mb(side, large_latent())
    except JobFailed as failure:
        if "RESULT_TOO_LARGE" not in str(failure):
            raise
        print(str(failure)[:300], flush=True)
        return side.peak_mb
    raise SystemExit("the job of 2 GB was not refused")


def large_latent() -> dict[str, Any]:
    """A job that saves a large file without encoding it: a latent of 2 GB."""
    inputs = {"width": 8192, "height": 8192, "batch_size": LARGE_BYTES // (4 * 4 * 1024 * 1024)}
    latent = {"class_type": "EmptyLatentImage", "inputs": inputs}
    save = {"samples": ["1", 0], "filename_prefix": "large"}
    return {
        "workflow": {"1": latent, "2": {"class_type": "SaveLatent", "inputs": save}},
    }


async def _peak_mb(side: Side, job: dict[str, Any]) -> float:
    """Run a job, and return the largest memory of the handler above its memory before."""
    handler = psutil.Process(side.processes[-1].pid)
    before = handler.memory_info().rss
    side.peak_mb = 0.0
    running = asyncio.create_task(side.api.run([job], at_once=True))
    while not running.done():
        side.peak_mb = max(side.peak_mb, (handler.memory_info().rss - before) / 1e6)
        await asyncio.sleep(LOOK_S)
    await running
    return side.peak_mb


if __name__ == "__main__":
    sys.exit(main())
