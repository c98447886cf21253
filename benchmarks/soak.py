"""Runs a thousand jobs of mixed templates, five at a time, with hostile inputs and a fault every twenty.

No job may hang or get lost, and the worker must not grow. The worker and the faults are those of
``tests/e2e/faults``: the real ComfyUI, the real SDK and the local endpoint. Run it as
``python -m benchmarks.soak``. It exits with 1 and says why if something happened that must not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from comfy_common import paths
from tests import hostile_inputs, placeholders
from tests.e2e.faults.conftest import LIMITS, faulty_worker
from tests.e2e.faults.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--every", type=int, default=20, help="a fault after every so many jobs")
    parser.add_argument(
        "--inputs", type=Path, help="a folder of further hostile inputs, as JSON files"
    )
    args = parser.parse_args()
    hostile = hostile_inputs.built_in()
    if args.inputs:
        hostile |= hostile_inputs.from_folder(args.inputs)
    models = paths.CACHE / "test-models"
    placeholders.write_all(models)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        faulty_worker(models, Path(folder), **LIMITS) as worker,
    ):
        soak = Soak(worker, hostile)
        soak.run(args.jobs, args.every)
    print(soak.report())
    print(f"{time.monotonic() - began:.0f} s")
    for problem in soak.problems():
        print(problem)
    return 1 if soak.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
