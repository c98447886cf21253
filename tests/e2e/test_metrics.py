"""What Prometheus reads at the local endpoint after a real job, and that no client's text is in it."""

from __future__ import annotations

import pytest
import requests

from tests.e2e.conftest import Client
from tests.unit.test_metrics import numbers

pytestmark = pytest.mark.e2e

# The process's start, and what a test may wait for.
MOMENTS = ("settings read", "worker imported", "SDK imported", "ComfyUI ready", "first job taken")


def page(client: Client) -> str:
    base = client.url.removesuffix("/v2/local")
    answer = requests.get(f"{base}/metrics", timeout=30)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return answer.text


def test_a_job_is_counted_without_its_texts(worker: Client) -> None:
    before = numbers(page(worker))
    job = worker.runsync(
        {"prompt": "a very secret otter", "seed": 7, "steps": 3, "width": 64, "height": 64}
    )
    assert job["status"] == "COMPLETED"
    text = page(worker)
    after = numbers(text)

    def added(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert added("comfy_worker_jobs_total{code=,outcome=done}") == 1
    assert added("comfy_worker_steps_total") == 3
    assert added("comfy_worker_output_files_total") == 1
    assert added("comfy_worker_output_bytes_total") == job["output"]["images"][0]["bytes"]
    assert added("comfy_worker_stage_seconds_count{stage=execute}") == 1
    assert added("comfy_endpoint_jobs_total{status=COMPLETED}") == 1
    assert after["comfy_endpoint_workers{state=idle}"] == 1
    for moment in MOMENTS:
        assert after[f"comfy_worker_start_seconds_count{{moment={moment}}}"] >= 1
    for private in ("otter", job["id"], job["workerId"], job["output"]["images"][0]["filename"]):
        assert private not in text


def test_a_failed_job_is_counted_by_code(worker: Client) -> None:
    worker.runsync({"workflow": "no-such-template"})
    assert numbers(page(worker))["comfy_worker_jobs_total{code=UNKNOWN_WORKFLOW,outcome=failed}"]
