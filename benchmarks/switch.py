"""Whether models stay loaded: a job with checkpoint A, one with B, A again. Run ``python -m benchmarks.switch``.

If A is still loaded, A after B takes as long as A after A.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.graphs import CHECKPOINT, from_checkpoint
from benchmarks.report import Row, make_parser, report, row_of
from benchmarks.sides import SECOND_CHECKPOINT, both_sides, model_folder

SIZE = 64
STEPS = [
    ("switch: A after A", CHECKPOINT),
    ("switch: B after A", SECOND_CHECKPOINT),
    ("switch: A after B", CHECKPOINT),
]


def main() -> int:
    """Measure and report."""
    options = make_parser(__doc__, rounds=5).parse_args()
    rows = asyncio.run(_measure(options.peer, options.rounds))
    report("switch", rows, options.json)
    return 0


async def _measure(peer: Path | None, rounds: int) -> list[Row]:
    models = await asyncio.to_thread(model_folder)
    async with both_sides(models, peer) as sides:
        times: dict[str, dict[str, list[float]]] = {title: {} for title, _ in STEPS}
        for turn in range(rounds + 1):
            for name, side in sides.items():
                for title, checkpoint in STEPS:
                    taken = await side.api.run([from_checkpoint(SIZE, checkpoint)], at_once=True)
                    if turn:  # the first round loads both
                        times[title].setdefault(name, []).append(taken.worker_ms[0])
        return [row_of(title, times[title]) for title, _ in STEPS]


if __name__ == "__main__":
    sys.exit(main())
