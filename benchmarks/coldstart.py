"""From the start of the process to the first answer. Run it as ``python -m benchmarks.coldstart``.

The page cache is warm, both sides are compiled to bytecode, as in an image, and the first round of
each side is not counted. With ``--cold`` (as root) the page cache is emptied before each start.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.graphs import flat, from_checkpoint
from benchmarks.report import Row, make_parser, report, row_of
from benchmarks.sides import OURS, PEER, model_folder, started
from comfy_common import paths

JOBS: dict[str, Callable[[], dict[str, Any]]] = {
    "no model": flat,
    "tiny checkpoint": partial(from_checkpoint, 64),
}
START_LINE = " start: "
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> int:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", choices=JOBS, help="measure one of the two jobs")
    parser.add_argument(
        "--cold", action="store_true", help="empty the page cache before each start"
    )
    options = parser.parse_args()
    jobs = {name: make for name, make in JOBS.items() if options.only in (None, name)}
    rows = asyncio.run(_measure(options, jobs))
    report("coldstart", rows, options.json)
    return 0


async def _measure(
    options: argparse.Namespace, jobs: dict[str, Callable[[], dict[str, Any]]]
) -> list[Row]:
    models = await asyncio.to_thread(model_folder)
    names = [OURS] if options.peer is None else [OURS, PEER]
    for folder in (paths.REPO / "comfy_common", paths.REPO / "comfy_worker", options.peer):
        if folder is not None:
            compileall.compile_dir(folder, quiet=1)
    rows = []
    for title, make in jobs.items():
        times: dict[str, list[float]] = {name: [] for name in names}
        cpu: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(options.rounds + 1):
            for name in names if turn % 2 else reversed(names):
                wall_ms, cpu_ms = await _start(name, models, options, make())
                print(f"{title}, {name}: {wall_ms:.0f} ms", flush=True)
                if turn:
                    times[name].append(wall_ms)
                    cpu[name].append(cpu_ms)
        cache = ", cold page cache" if options.cold else ""
        rows.append(row_of(f"process start to first answer, {title}{cache}", times, cpu))
    return rows


async def _start(
    name: str, models: Path, options: argparse.Namespace, job: dict[str, Any]
) -> tuple[float, float]:
    """Start one side with a job that waits; returns wall and processor time in milliseconds."""
    if options.cold:
        os.sync()
        DROP_CACHES.write_text("3")
    began = time.perf_counter()
    async with started(name, models, options.peer) as side:
        await side.api.run([job], at_once=True)
        wall_ms = (time.perf_counter() - began) * 1000
        await asyncio.sleep(0.1)  # the log's last lines
        for line in side.log.read_text(errors="replace").splitlines():
            if START_LINE in line:
                print(line.partition(START_LINE)[2], flush=True)
        return wall_ms, side.cpu_s() * 1000


if __name__ == "__main__":
    sys.exit(main())
