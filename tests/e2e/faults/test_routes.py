"""A route of ComfyUI fails or hangs, one after the other; and RunPod does not take a result."""

from __future__ import annotations

import os

import pytest

from comfy_common import paths
from comfy_worker.comfyui.version import ComfyUIVersion
from tests.e2e.faults.conftest import FaultyWorker, faulty_graph, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

VERSION = ComfyUIVersion.in_folder(paths.comfyui_dir(os.environ))
CANCEL_ROUTES = ["/api/jobs/"] if VERSION.has_cancel_route else ["/interrupt", "/queue"]


def test_a_lost_answer_does_not_queue_twice(faulty: FaultyWorker) -> None:
    before = faulty.proxy.requests["POST /prompt"]
    with faulty.proxy.fault("POST", "/prompt", "deliver-cut", times=1):
        assert faulty.goes_on()
    assert faulty.proxy.requests["POST /prompt"] == before + 1


@pytest.mark.parametrize("action", ["500", "garbage", "cut", "hang"])
def test_failed_queuing_is_tried_once_more(faulty: FaultyWorker, action: str) -> None:
    with faulty.proxy.fault("POST", "/prompt", action, times=1) as rule:
        assert faulty.goes_on()
        assert rule.seen == 1


def test_repeated_queuing_failure_is_reported(faulty: FaultyWorker) -> None:
    with faulty.proxy.fault("POST", "/prompt", "500") as rule:
        error = faulty.failed(faulty.submit({"workflow": faulty_graph("FaultPrint", text="x")}))
        assert error == "COMFYUI_UNAVAILABLE: ComfyUI answered HTTP 500 to POST /prompt"
        assert rule.seen == 2


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/queue", "500"),
        ("/queue", "cut"),
        ("/queue", "hang"),
        ("/history/", "garbage"),
        ("/history/", "hang"),
    ],
)
def test_a_failed_prompt_lookup_is_repeated(faulty: FaultyWorker, path: str, action: str) -> None:
    job_id = faulty.submit({"workflow": faulty_graph("FaultSleep", seconds=0.5, heed=True)})
    faulty.running("FaultSleep")
    with faulty.proxy.fault("GET", path, action, times=1 if action == "hang" else 2) as rule:
        faulty.proxy.cut_sockets()
        assert faulty.is_red(job_id)
        assert rule.seen == rule.times


@pytest.mark.parametrize("action", ["500", "cut", "hang"])
def test_failed_history_deletion_is_repeated_later(faulty: FaultyWorker, action: str) -> None:
    with faulty.proxy.fault("POST", "/history", action, times=1 if action == "hang" else 3) as rule:
        assert faulty.goes_on()
        wait_until(lambda: rule.seen == rule.times)  # the fixture looks that none is left


@pytest.mark.parametrize("path", CANCEL_ROUTES)
@pytest.mark.parametrize("action", ["500", "hang"])
def test_a_cancel_gets_through_a_route_that_fails(
    faulty: FaultyWorker, path: str, action: str
) -> None:
    kept = faulty.comfyui().pid
    job_id = faulty.submit({"workflow": faulty_graph("FaultWait")})
    prompt_id = faulty.running("FaultWait")
    with faulty.proxy.fault("POST", path, action, times=1) as rule:
        faulty.post(f"cancel/{job_id}")
        wait_until(lambda: rule.seen == 1 and prompt_id not in str(faulty.queue()))
    assert faulty.comfyui().pid == kept


@pytest.mark.parametrize("action", ["500", "cut"])
def test_occasional_failed_health_checks_are_harmless(faulty: FaultyWorker, action: str) -> None:
    kept = faulty.comfyui().pid
    with faulty.proxy.fault("GET", "/prompt", action, times=2) as rule:
        wait_until(lambda: rule.seen == 2)
        assert faulty.goes_on()
    assert faulty.comfyui().pid == kept


def test_a_refused_result_is_sent_again(faulty: FaultyWorker) -> None:
    faulty.mailbox.refusals = 3  # after which the SDK by itself drops it
    assert faulty.goes_on()
    assert faulty.mailbox.refusals == 0
