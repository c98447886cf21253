"""What the worker itself costs: 64x64 pictures without a model. Run it as ``python -m benchmarks.overhead``."""

from __future__ import annotations

import sys

from benchmarks.graphs import flat
from benchmarks.scenarios import Scenario, run

SCENARIOS = [
    Scenario("64x64, one after the other", flat, flat, at_once=False),
    Scenario("64x64, all at once", flat, flat, at_once=True),
]

if __name__ == "__main__":
    sys.exit(run("overhead", SCENARIOS, __doc__))
