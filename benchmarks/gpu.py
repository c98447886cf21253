"""Pictures a minute at 1 to 30 steps, beside ComfyUI alone. Run it as ``python -m benchmarks.gpu``.

``--model sdxl`` and ``--model z-image`` write random weights of these models' full size first (7
and 20 GB, mostly holes). Without it the tiny placeholder of SDXL's shape runs, which also works on a
CPU. ``--models`` and ``--checkpoint`` take a model of your own. The ratio is the worker's time
divided by that of ComfyUI alone: the goal is 1/0.95 at 1 step and 1/0.98 at 20.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.graphs import from_checkpoint, of_size, with_steps, z_image
from benchmarks.random_models import MODELS, SDXL, Z_IMAGE, write_models
from benchmarks.report import make_parser, report
from benchmarks.throughput import measure
from comfy_common import paths
from tests import placeholders

SIZE = 1024


def main() -> int:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), help="write and use random weights")
    parser.add_argument("--models", type=Path, help="a folder of models")
    parser.add_argument("--checkpoint", default=placeholders.CHECKPOINT_SDXL)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 20, 30])
    parser.add_argument("--jobs", type=int, default=8, help="how many jobs wait at once")
    parser.add_argument("--write-only", action="store_true", help="write the weights, and end")
    options = parser.parse_args()
    models = options.models or _models(options.model)
    if options.write_only:
        return 0
    make = partial(_job, options.model, options.checkpoint)
    graphs = {f"{steps} steps": partial(make, steps) for steps in options.steps}
    rows = asyncio.run(measure(graphs, models, options.rounds, options.jobs))
    name = options.model or options.checkpoint
    report(f"gpu: {name} (peer: ComfyUI alone)", rows, options.json)
    for row in rows:
        print(f"{row.name}: {60_000 / row.ours:.0f} pictures a minute")
    return 0


def _job(model: str | None, checkpoint: str, steps: int) -> dict[str, Any]:
    if model == Z_IMAGE:
        return with_steps(z_image(SIZE, *map(_file_name, MODELS[Z_IMAGE])), steps)
    if model == SDXL:
        own = _file_name(next(iter(MODELS[SDXL])))
        return with_steps(of_size(from_checkpoint(SIZE, own), SIZE), steps)
    return with_steps(from_checkpoint(SIZE, checkpoint), steps)


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _models(model: str | None) -> Path:
    folder = paths.CACHE / ("test-models" if model is None else "random-models")
    if model is None:
        placeholders.write_all(folder)
    else:
        for file in write_models(folder, model):
            print(f"{file}: {file.stat().st_size / 1e9:.1f} GB")
    return folder


if __name__ == "__main__":
    sys.exit(main())
