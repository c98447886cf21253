"""What a worker that cannot work says at start, and what its jobs are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_common.paths import REPO
from comfy_local.endpoint import LocalEndpoint
from comfy_local.endpoint.workers import worker_environ
from tests.e2e.conftest import Client
from tests.e2e.faults.conftest import FaultyWorker, wait_until
from tests.graphs import node

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]


def test_a_failed_node_pack_is_always_named(
    faulty: FaultyWorker,
) -> None:
    why = "node pack broken failed to load: ModuleNotFoundError: No module named 'no_such_package'"
    assert why in faulty.log
    assert (
        "node pack broken needs Python packages that are not installed: no-such-package"
        in faulty.log
    )
    graph = {
        "bad": node("BrokenNode"),
        "save": node("SaveImage", images=["bad", 0], filename_prefix="x"),
    }
    job = faulty.runsync({"workflow": graph})
    assert job["error"] == (
        f"NODE_NOT_INSTALLED: node bad (BrokenNode): this ComfyUI has no BrokenNode: its {why}; "
        "install no-such-package beside ComfyUI"
    )


def test_disabled_paid_services_are_explained(faulty: FaultyWorker) -> None:
    graph = {
        "paid": node("OpenAIDalle3", prompt="a fox"),
        "save": node("SaveImage", images=["paid", 0], filename_prefix="x"),
    }
    job = faulty.runsync({"workflow": graph})
    assert job["error"].startswith(
        "NODE_NOT_INSTALLED: node paid (OpenAIDalle3): this ComfyUI has no OpenAIDalle3"
    )
    assert "it calls a paid service of comfy.org, and such nodes are off" in job["error"]
    assert "set API_NODES=true" in job["error"]


def started(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What a handler says and does that RunPod starts, until it ends by itself."""
    base_environ = worker_environ(
        {**os.environ, "TMPDIR": str(folder)}, "http://127.0.0.1:1/v2/local", "pod"
    )
    return subprocess.run(
        [sys.executable, "handler.py"],
        cwd=REPO,
        env={**base_environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        (
            {"COMFYUI_DIR": "/nowhere"},
            "comfyui_files | Unfit: /nowhere is not a complete ComfyUI: it lacks",
        ),
        ({"MIN_FREE_DISK_MB": "1e12"}, "free_disk | Unfit: the worker's disk has"),
    ],
)
def test_a_broken_container_exits_with_a_reason(
    tmp_path: Path, environ: dict[str, str], reason: str
) -> None:
    ended = started(tmp_path, **environ)
    assert ended.returncode == 1, ended.stdout
    assert f"Fitness check failed: {reason}" in ended.stdout
    wait_until(lambda: not list(tmp_path.iterdir()))


def test_a_failed_start_requests_a_fresh_worker(
    tmp_path: Path,
) -> None:
    log = tmp_path / "worker.log"
    environ = {**os.environ, "TMPDIR": str(tmp_path), "COMFY_ARGS": "--no-such-flag"}
    with LocalEndpoint(environ=environ, log_path=log) as endpoint:
        jobs = [Client(endpoint.url).runsync({"prompt": "a fox"}) for _ in range(2)]
    for job in jobs:
        assert job["error"].startswith(
            "COMFYUI_UNAVAILABLE: ComfyUI ended with exit status 2 while it was starting and its log says"
        )
        assert any("--no-such-flag" in line for line in job["output"]["details"][0]["log"])
    assert jobs[0]["workerId"] != jobs[1]["workerId"]


def test_refresh_worker_gives_each_job_its_worker(tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "REFRESH_WORKER": "true",
        "WORKER_CONCURRENCY": "4",
    }
    with LocalEndpoint(environ=environ, log_path=tmp_path / "worker.log") as endpoint:
        client = Client(endpoint.url)
        ids = [client.post("run", {"input": {"steps": "many"}})["id"] for _ in range(2)]
        jobs = [wait_until(lambda sent=job_id: _ended(client, sent)) for job_id in ids]
    assert [job["error"].partition(":")[0] for job in jobs] == ["INVALID_INPUT"] * 2
    assert len({job["workerId"] for job in jobs}) == 2


def _ended(client: Client, job_id: str) -> dict[str, Any] | None:
    job = client.get(f"status/{job_id}")
    return job if job["status"] == "FAILED" else None
