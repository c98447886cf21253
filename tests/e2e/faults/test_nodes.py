"""What a bad node does to its own job, and that the worker goes on."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import pictures
from tests.e2e.faults.conftest import FaultyWorker, faulty_graph

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def test_the_error_names_the_failing_node(faulty: FaultyWorker) -> None:
    graph = faulty_graph("FaultRaise", exception="ValueError", message="seven is no colour")
    job = faulty.runsync({"workflow": graph})
    assert job["status"] == "FAILED", job
    assert job["error"].startswith("EXECUTION_FAILED: ")
    assert "FaultRaise" in job["error"]
    assert "seven is no colour" in job["error"]


def test_a_picture_passes_through_a_node_that_behaves(faulty: FaultyWorker) -> None:
    (picture,) = pictures(
        faulty.output({"workflow": faulty_graph("FaultSleep", seconds=0.1, heed=True)})
    )
    assert picture.getpixel((0, 0)) == (255, 0, 0)
