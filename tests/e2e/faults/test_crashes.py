"""ComfyUI dies, hangs or stalls: what its job gets, what the others get, and that the worker goes on."""

from __future__ import annotations

import json
import re
from typing import Any

import psutil
import pytest

from tests.e2e.faults.conftest import FaultyWorker, faulty_graph, wait_until
from tests.graphs import node

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def log_of(job: dict[str, Any]) -> str:
    """ComfyUI's last log lines in the details of an error."""
    return json.dumps(job["output"]["details"])


def test_a_kill_between_prompts_delays_the_next(
    faulty: FaultyWorker,
) -> None:
    killed = faulty.kill_comfyui()
    job_id = faulty.submit({"workflow": faulty_graph("FaultSleep", seconds=0.0, heed=True)})
    progress = wait_until(lambda: faulty.get(f"status/{job_id}").get("output"))
    assert progress == {"percent": 0, "message": "starting ComfyUI"}
    assert faulty.is_red(job_id)
    assert faulty.comfyui().pid != killed


def test_a_kill_fails_only_the_running_job(
    any_faulty: FaultyWorker,
) -> None:
    graph = faulty_graph("FaultWait")
    graph["word"] = node("FaultPrint", image=["image", 0], text="its last words")
    graph["fault"]["inputs"]["image"] = ["word", 0]
    first = any_faulty.submit({"workflow": graph})
    any_faulty.running("FaultWait")
    behind = [
        any_faulty.submit({"workflow": faulty_graph("FaultSleep", seconds=0.0, heed=True)}),
        any_faulty.submit({"workflow": faulty_graph("FaultPrint", text="behind")}),
    ]
    wait_until(lambda: len(any_faulty.queue()["queue_pending"]) == 2)
    any_faulty.comfyui().kill()
    job = any_faulty.finished(first)
    assert job["error"].startswith(
        "COMFYUI_UNAVAILABLE: ComfyUI was killed by SIGKILL while the workflow ran"
    )
    assert "its last words" in log_of(job)
    assert all(map(any_faulty.is_red, behind))


def test_a_dead_prompt_thread_is_not_retried(
    faulty: FaultyWorker,
) -> None:
    graph = faulty_graph("FaultRaise", exception="SystemExit", message="bye")
    job_id = faulty.submit({"workflow": graph})
    error = faulty.failed(job_id)
    assert error.startswith("COMFYUI_UNAVAILABLE: ComfyUI ended with exit status 70")
    assert "its log says 'SystemExit: bye'" in error
    assert f"action=job.again job_id={job_id}" not in faulty.log
    assert faulty.goes_on()


def test_a_crash_reports_its_cause_without_leftovers(faulty: FaultyWorker) -> None:
    graph = faulty_graph("FaultFork")
    graph["sleep"] = {
        "class_type": "FaultSleep",
        "inputs": {"image": ["fault", 0], "seconds": 1.0, "heed": True},
    }
    last_words = "RuntimeError: CUDA error: an illegal memory access was encountered"
    inputs = {"image": ["sleep", 0], "status": 1, "last_words": last_words}
    graph["exit"] = {"class_type": "FaultExit", "inputs": inputs}
    graph["save"]["inputs"]["images"] = ["exit", 0]
    job = faulty.finished(faulty.submit({"workflow": graph}))
    error = job["error"]
    assert error.startswith(
        "COMFYUI_UNAVAILABLE: ComfyUI ended with exit status 1 while the workflow ran"
    )
    assert last_words in error
    assert last_words not in faulty.log, "a node's words may be its client's"
    assert faulty.goes_on()
    (forked,) = re.findall(r"forked (\d+)", log_of(job))
    assert not psutil.pid_exists(int(forked))


def test_a_stopped_comfyui_is_replaced(faulty: FaultyWorker) -> None:
    job_id = faulty.submit({"workflow": faulty_graph("FaultWait")})
    faulty.running("FaultWait")
    faulty.comfyui().suspend()
    assert faulty.failed(job_id).startswith(
        "COMFYUI_UNAVAILABLE: ComfyUI left HTTP unanswered for 6 s"
    )
    assert faulty.goes_on()


def test_the_stall_limit_ends_a_hanging_node(faulty: FaultyWorker) -> None:
    killed = faulty.comfyui().pid
    job_id = faulty.submit({"workflow": faulty_graph("FaultSleep", seconds=600.0, heed=False)})
    error = faulty.failed(job_id)
    assert error.startswith(
        "COMFYUI_UNAVAILABLE: the workflow showed no sign of life for 15 s in node fault"
    )
    assert faulty.goes_on()
    assert faulty.comfyui().pid != killed, "it did not heed the interrupt"


def test_a_comfyui_that_starts_nothing_is_replaced(
    faulty: FaultyWorker,
) -> None:
    assert faulty.is_red(faulty.submit({"workflow": faulty_graph("FaultWedge")}))
    assert faulty.goes_on()
    assert "ComfyUI took up no workflow for 15 s" in faulty.log


def test_waiting_behind_a_slow_prompt_is_fine(faulty: FaultyWorker) -> None:
    steps = faulty_graph("FaultSleep", seconds=9.0, heed=True)
    steps["second"] = {
        "class_type": "FaultSleep",
        "inputs": {**steps["fault"]["inputs"], "image": ["fault", 0]},
    }
    steps["save"]["inputs"]["images"] = ["second", 0]
    slow = faulty.submit({"workflow": steps})
    faulty.running("FaultSleep")
    assert faulty.goes_on()
    assert faulty.is_red(slow)


def test_a_segmentation_fault_is_told_as_such(faulty: FaultyWorker) -> None:
    error = faulty.failed(faulty.submit({"workflow": faulty_graph("FaultSegfault")}))
    assert error.startswith(
        "COMFYUI_UNAVAILABLE: ComfyUI was killed by SIGSEGV while the workflow ran"
    )
    assert faulty.goes_on()
