"""What Prometheus reads, parsed by its own client: the format, the worker's numbers and the sum."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from pathlib import Path
from typing import cast

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from comfy_common.metrics import FOLDER_VARIABLE, measure_machine
from comfy_common.prometheus import Metric, Samples
from comfy_local.endpoint.jobs import Jobs
from comfy_local.endpoint.metrics import EndpointMetrics
from comfy_local.endpoint.workers import Worker, WorkerPool
from comfy_worker import metrics
from comfy_worker.health import HealthServer
from comfy_worker.job_record import JobRecord
from comfy_worker.metrics import WorkerMetrics
from comfy_worker.startup import StartTimes

GIB = 2.0**30


def numbers(text: str) -> dict[str, float]:
    """Every sample of a page, by its name and labels as Prometheus writes them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_page_is_read_back() -> None:
    odd = 'a "quoted"\nline\\end'
    count = Metric("x_total", "counter", "Things", ("text",))
    size = Metric("x_seconds", "histogram", "Sizes", buckets=(0.5, 1, 10))
    state = Metric("x_now", "gauge", "A state")
    samples = Samples()
    samples.add(count, 2, odd)
    samples.add(count, 1.5, odd)
    samples.set(state, 4)
    samples.set(state, 5)
    for value in (0.5, 0.7, 11):
        samples.observe(size, value)
    text = samples.text([state, count, size])
    types = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert types == {"x_now": "gauge", "x": "counter", "x_seconds": "histogram"}
    assert numbers(text) == {
        "x_now": 5,
        f"x_total{{text={odd}}}": 3.5,
        "x_seconds_bucket{le=0.5}": 1,
        "x_seconds_bucket{le=1}": 2,
        "x_seconds_bucket{le=10}": 2,
        "x_seconds_bucket{le=+Inf}": 3,
        "x_seconds_sum": pytest.approx(12.2),
        "x_seconds_count": 3,
    }


def record(code: str = "", steps: int | None = 20) -> JobRecord:
    stages = {"wait": 0, "execute": 2000}
    return JobRecord("txt2img", stages, steps, files=1, bytes=4000, warnings=2, code=code)


@pytest.fixture
def worker_metrics() -> WorkerMetrics:
    starts = StartTimes(0.0)
    starts._seconds = {"ComfyUI ready": 7.5}
    return WorkerMetrics(starts)


def test_jobs_are_counted_by_outcome(worker_metrics: WorkerMetrics) -> None:
    worker_metrics.count(record(), 2100)
    worker_metrics.count(record(steps=None), 2100)
    worker_metrics.count(record("OUT_OF_MEMORY"), 900)
    found = numbers(worker_metrics.text())
    expected = {
        "comfy_worker_jobs_total{code=,outcome=done}": 2,
        "comfy_worker_jobs_total{code=OUT_OF_MEMORY,outcome=failed}": 1,
        "comfy_worker_job_seconds_sum": pytest.approx(4.2),
        "comfy_worker_stage_seconds_count{stage=execute}": 3,
        "comfy_worker_stage_seconds_bucket{le=2.5,stage=execute}": 3,
        "comfy_worker_steps_total": 20,
        "comfy_worker_output_files_total": 2,
        "comfy_worker_output_bytes_total": 8000,
        "comfy_worker_warnings_total": 4,
        "comfy_worker_start_seconds_sum{moment=ComfyUI ready}": 7.5,
    }
    assert {name: found[name] for name in expected} == expected
    free_bytes = found["comfy_machine_memory_free_bytes"]
    assert 0 < free_bytes <= found["comfy_machine_memory_limit_bytes"]


def test_the_health_port_answers_prometheus() -> None:
    server = HealthServer(0, lambda: False)
    server.start()
    try:
        answer = requests.get(f"http://127.0.0.1:{server.port}/metrics", timeout=30)
    finally:
        server.close()
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "comfy_machine_memory_free_bytes" in numbers(answer.text)


class Pool:
    """The workers that run, as far as the metrics ask for them."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def counts(self) -> dict[str, int]:
        return {"idle": len(self.workers), "running": 0}


def test_an_ended_workers_counts_stay(tmp_path: Path, worker_metrics: WorkerMetrics) -> None:
    pool, jobs = Pool(), Jobs(lambda: 0.0)
    endpoint = EndpointMetrics(jobs, cast(WorkerPool, pool), tmp_path)
    job_id = jobs.submit({"input": {}}, sync=False).job_id
    jobs.submit({"input": {}}, sync=False)
    jobs.cancel(job_id)
    pool.workers = [Worker("first", cast("subprocess.Popen[bytes]", None))]
    worker_metrics.keep_for_endpoint({FOLDER_VARIABLE: str(tmp_path), "RUNPOD_POD_ID": "first"})
    worker_metrics.count(record(), 2100)
    before = numbers(asyncio.run(endpoint.text()))
    assert before["comfy_worker_jobs_total{code=,outcome=done}"] == 1
    assert before["comfy_endpoint_jobs_waiting"] == 1
    assert before["comfy_endpoint_jobs_total{status=CANCELLED}"] == 1
    assert before["comfy_endpoint_workers{state=idle}"] == 1
    pool.workers = []
    after = numbers(asyncio.run(endpoint.text()))
    again = numbers(asyncio.run(endpoint.text()))
    assert after["comfy_worker_jobs_total{code=,outcome=done}"] == 1
    assert again["comfy_worker_stage_seconds_count{stage=execute}"] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_moment_is_saved_at_once(tmp_path: Path) -> None:
    starts = StartTimes(0.0)
    WorkerMetrics(starts).keep_for_endpoint(
        {FOLDER_VARIABLE: str(tmp_path), "RUNPOD_POD_ID": "first"}
    )
    starts.mark("first job taken")
    [[name, labels, _]] = json.loads((tmp_path / "first.json").read_text())
    assert (name, labels) == ("comfy_worker_start_seconds", ["first job taken"])


def test_a_folder_that_is_gone_is_logged(
    tmp_path: Path,
    worker_metrics: WorkerMetrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "gone"
    caplog.set_level(logging.WARNING, "comfy_worker")  # threads of other tests log below
    worker_metrics.keep_for_endpoint({FOLDER_VARIABLE: str(folder), "RUNPOD_POD_ID": "first"})
    worker_metrics.count(record(), 2100)
    actions = [getattr(line, "action", "") for line in caplog.records]
    assert actions == ["metrics.failed", "metrics.failed"]
    assert numbers(worker_metrics.text())["comfy_worker_steps_total"] == 20


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program on the path; a test writes it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "nvidia-smi"
    file.touch(mode=0o755)
    return file


def test_gpus_are_measured(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\necho '1024, 143771, 37'\necho '2048, 16384, [N/A]'\n")
    samples = Samples()
    measure_machine(samples)
    found = numbers(samples.text(metrics.MACHINE_METRICS))
    assert found["comfy_gpu_memory_used_bytes{gpu=0}"] == GIB
    assert found["comfy_gpu_memory_bytes{gpu=1}"] == 16 * GIB
    assert found["comfy_gpu_busy_ratio{gpu=0}"] == pytest.approx(0.37)
    assert "comfy_gpu_busy_ratio{gpu=1}" not in found


def test_a_driver_without_an_answer_is_left_out(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\nexit 9\n")
    samples = Samples()
    measure_machine(samples)
    assert set(numbers(samples.text(metrics.MACHINE_METRICS))) == {
        "comfy_machine_memory_free_bytes",
        "comfy_machine_memory_limit_bytes",
    }
