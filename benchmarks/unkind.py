"""A thousand jobs behind an endpoint that misbehaves. Run it as ``python -m benchmarks.unkind``.

Each must be answered with its own picture or one coded error, although connections drop, requests
get errors and web pages, the endpoint is cut off for a minute, and a worker gets SIGTERM. It exits
with 1 and says why if a job is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.graphs import CHECKPOINT
from benchmarks.sides import model_folder
from comfy_local.endpoint import LocalEndpoint, Unkind
from tests.e2e.unkind_run import UnkindRun


def main() -> int:
    """Run the jobs and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--outage", type=float, default=60.0, help="in seconds")
    parser.add_argument("--share", type=float, default=0.2, help="of requests that get a fault")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = parser.parse_args()
    unkind = Unkind()
    environ = {**os.environ, "MODELS_DIR": str(model_folder()), "SD_MODEL": CHECKPOINT}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environ["TMPDIR"] = folder
        log = Path(folder) / "log"
        with LocalEndpoint(environ=environ, log_path=log, unkind=unkind) as endpoint:
            if not endpoint.wait_ready(300):
                raise SystemExit(log.read_text(errors="replace")[-3000:])
            run = UnkindRun(endpoint, unkind, options.share)
            run.run(options.jobs, options.outage)
    seconds = time.monotonic() - began
    print(f"{options.jobs + 1} jobs in {seconds:.0f} s: {dict(run.outcomes)}")
    print(f"the job after a cancel was done {run.cancel_s:.1f} s later")
    for problem in run.problems:
        print(problem)
    if options.json is not None:
        figures = {"outcomes": run.outcomes, "cancel_s": run.cancel_s, "problems": run.problems}
        document = {"benchmark": "unkind", "seconds": seconds, **figures}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
