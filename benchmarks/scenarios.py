"""Runs the same jobs through both workers in turns: A B, then B A."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.graphs import flat, from_checkpoint
from benchmarks.report import Row, line, make_parser, report, row_of
from benchmarks.sides import OURS, Side, both_sides, model_folder

__all__ = ["Scenario", "run"]

Make = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Scenario:
    """Jobs that are measured together.

    Attributes:
        name: what they are.
        ours: makes a job for this worker.
        peer: makes a job for the peer.
        at_once: whether all jobs wait in the queue together; else each waits for the one before.
    """

    name: str
    ours: Make
    peer: Make
    at_once: bool


def run(title: str, scenarios: list[Scenario], description: str | None) -> int:
    """Read the command line, measure, and report; returns the exit status."""
    parser = make_parser(description)
    parser.add_argument(
        "--jobs", type=int, default=16, help="how many jobs are at once in the queue"
    )
    options = parser.parse_args()
    rows = asyncio.run(_measure(scenarios, options))
    report(title, rows, options.json)
    return 0


async def _measure(scenarios: list[Scenario], options: Any) -> list[Row]:
    models = await asyncio.to_thread(model_folder)
    async with both_sides(models, options.peer) as sides:
        for side in sides.values():  # the boot, and the model's first loading
            await side.api.run([flat(), from_checkpoint(64)], at_once=False)
        rows = []
        for scenario in scenarios:
            rows.append(await _row(scenario, sides, options))
            print(line(rows[-1]), flush=True)
        return rows


async def _row(scenario: Scenario, sides: dict[str, Side], options: Any) -> Row:
    times: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    count = options.jobs if scenario.at_once else max(4, options.jobs // 3)
    for turn in range(options.rounds):
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in order:
            make = scenario.ours if name == OURS else scenario.peer
            inputs = [make() for _ in range(count)]
            cpu_before = sides[name].cpu_s()
            taken = await sides[name].api.run(inputs, at_once=scenario.at_once)
            cpu[name].append((sides[name].cpu_s() - cpu_before) * 1000 / count)
            times[name].append(taken.job_ms)
    return row_of(scenario.name, times, cpu)
