"""Pictures a minute at 1 to 30 steps, beside ComfyUI alone. Run it as ``python -m benchmarks.gpu``.

``--models`` is a folder with ``checkpoints/`` as ComfyUI has it, and ``--checkpoint`` a file in it;
random weights of a model's own shape do. Without them the tiny placeholder of SDXL's shape runs,
which also works on a CPU. The ratio is the worker's time divided by that of ComfyUI alone: the goal
is 1/0.95 at 1 step and 1/0.98 at 20.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.graphs import from_checkpoint, with_steps
from benchmarks.report import make_parser, report
from benchmarks.throughput import measure
from comfy_common import paths
from tests import placeholders

SIZE = 1024


def main() -> int:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--models", type=Path, help="a folder of models")
    parser.add_argument("--checkpoint", default=placeholders.CHECKPOINT_SDXL)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 20, 30])
    parser.add_argument("--jobs", type=int, default=8, help="how many jobs wait at once")
    options = parser.parse_args()
    graphs = {f"{steps} steps": partial(_job, options.checkpoint, steps) for steps in options.steps}
    models = options.models or _placeholders()
    rows = asyncio.run(measure(graphs, models, options.rounds, options.jobs))
    report(f"gpu: {options.checkpoint} (peer: ComfyUI alone)", rows, options.json)
    for row in rows:
        print(f"{row.name}: {60_000 / row.ours:.0f} pictures a minute")
    return 0


def _job(checkpoint: str, steps: int) -> dict[str, Any]:
    return with_steps(from_checkpoint(SIZE, checkpoint), steps)


def _placeholders() -> Path:
    folder = paths.CACHE / "test-models"
    placeholders.write_all(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
