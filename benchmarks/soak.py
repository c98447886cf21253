"""A thousand jobs of mixed templates, five at a time, with a fault every twenty: nothing hangs, is lost or grows.

Real ComfyUI, real SDK loop, local endpoint, as in ``tests/e2e/faults``, whose worker and faults these are. Run it
as ``python -m benchmarks.soak``; it exits with 1 and says why if anything happened that must not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from comfy_common import paths
from tests import placeholders
from tests.e2e.faults.conftest import LIMITS, faulty_worker
from tests.e2e.faults.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--every", type=int, default=20, help="a fault after every so many jobs")
    args = parser.parse_args()
    models = paths.CACHE / "test-models"
    placeholders.write_all(models)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, faulty_worker(models, Path(folder), **LIMITS) as worker:
        soak = Soak(worker)
        soak.run(args.jobs, args.every)
    print(soak.report())
    print(f"{time.monotonic() - began:.0f} s")
    for problem in soak.problems():
        print(problem)
    return 1 if soak.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
