"""The websocket breaks, is refused or goes deaf: ComfyUI's history decides, and nothing is lost."""

from __future__ import annotations

import time

import pytest

from tests.e2e.faults.conftest import FaultyWorker, faulty_graph, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def sleeping(faulty: FaultyWorker, seconds: float) -> str:
    """A job that sleeps in ComfyUI by now."""
    job_id = faulty.submit({"workflow": faulty_graph("FaultSleep", seconds=seconds, heed=True)})
    faulty.running("FaultSleep")
    return job_id


def test_a_cut_socket_reopens_once(
    faulty: FaultyWorker,
) -> None:
    job_id = sleeping(faulty, 2.0)
    before = faulty.proxy.sockets_opened
    faulty.proxy.cut_sockets()
    assert faulty.is_red(job_id)
    assert faulty.proxy.sockets_opened == before + 1
    assert faulty.goes_on()


def test_a_refused_socket_delays_no_job(
    faulty: FaultyWorker,
) -> None:
    job_id = sleeping(faulty, 1.0)
    began = time.monotonic()
    with faulty.proxy.refusing_sockets():
        assert faulty.is_red(job_id)
        assert faulty.goes_on(), "without a socket at all"
        wait_until(lambda: time.monotonic() - began > 10)
    opened = faulty.proxy.sockets_opened
    wait_until(lambda: faulty.proxy.sockets_opened == opened + 1)
    assert faulty.goes_on()


def test_a_silent_socket_is_replaced(
    faulty: FaultyWorker,
) -> None:
    before = faulty.proxy.sockets_opened
    with faulty.proxy.deaf_sockets():
        assert faulty.goes_on()
    wait_until(lambda: faulty.proxy.sockets_opened > before)


def test_deaf_an_error_is_found_in_the_history(faulty: FaultyWorker) -> None:
    graph = faulty_graph("FaultRaise", exception="ValueError", message="unheard")
    with faulty.proxy.deaf_sockets():
        error = faulty.failed(faulty.submit({"workflow": graph}))
    assert error.startswith(
        "EXECUTION_FAILED: node fault (FaultRaise) failed with ValueError: unheard"
    )


def test_a_history_that_is_late_is_waited_for(faulty: FaultyWorker) -> None:
    job_id = sleeping(faulty, 1.0)
    with faulty.proxy.fault("GET", "/history/", "empty") as rule:
        faulty.proxy.cut_sockets()
        wait_until(lambda: rule.seen >= 4)
    assert faulty.is_red(job_id)


def test_an_unknown_prompt_is_reported_as_lost(faulty: FaultyWorker) -> None:
    job_id = sleeping(faulty, 1.0)
    with faulty.proxy.fault("GET", "/history/", "empty"):
        faulty.proxy.cut_sockets()
        assert (
            faulty.failed(job_id)
            == "COMFYUI_UNAVAILABLE: ComfyUI lost the prompt; send the job again"
        )
