"""How long 1024x1024 pictures from a model take. Run it as ``python -m benchmarks.pixels``.

The peer knows PNG only, so this worker's JPEG is compared with the peer's PNG.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.graphs import from_checkpoint, with_format
from benchmarks.scenarios import Scenario, run


def jpeg() -> dict[str, Any]:
    """A job whose picture is a JPEG."""
    return with_format(from_checkpoint(), "jpeg")


SCENARIOS = [
    Scenario("1024 PNG, one after the other", from_checkpoint, from_checkpoint, at_once=False),
    Scenario("1024 PNG, all at once", from_checkpoint, from_checkpoint, at_once=True),
    Scenario("1024 JPEG (peer: PNG), one after the other", jpeg, from_checkpoint, at_once=False),
    Scenario("1024 JPEG (peer: PNG), all at once", jpeg, from_checkpoint, at_once=True),
]

if __name__ == "__main__":
    sys.exit(run("pixels", SCENARIOS, __doc__))
