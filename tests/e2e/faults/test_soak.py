"""A short soak; ``python -m benchmarks.soak`` is the long one."""

from __future__ import annotations

import pytest

from tests import hostile_inputs
from tests.e2e.faults.conftest import FaultyWorker
from tests.e2e.faults.soak import Soak, break_routes, cancel, cut, kill, raise_in_node

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def test_a_hundred_jobs_survive_regular_faults(faulty: FaultyWorker) -> None:
    soak = Soak(faulty, hostile_inputs.built_in())
    soak.run(100, 20, (cut, kill, break_routes, raise_in_node, cancel))
    assert soak.problems() == [], soak.report()
    assert len(soak.outcomes) == 100
    assert len(soak.faults) == 5
