"""How long jobs take that bring a picture of 2 MB. Run it as ``python -m benchmarks.inputs``."""

from __future__ import annotations

import sys

from benchmarks.graphs import edit
from benchmarks.scenarios import Scenario, run

SCENARIOS = [
    Scenario("2 MB in, 1024 PNG out, one after the other", edit, edit, at_once=False),
    Scenario("2 MB in, 1024 PNG out, all at once", edit, edit, at_once=True),
]

if __name__ == "__main__":
    sys.exit(run("inputs", SCENARIOS, __doc__))
