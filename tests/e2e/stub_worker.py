"""A worker without ComfyUI: our job loop under the real SDK, around jobs that do what their input says.

Run as a program by the endpoint. ``TEST_`` variables change what a test cannot wait for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any, cast

from runpod.serverless.modules.rp_logger import RunPodLogger

from comfy_worker import logs
from comfy_worker.runner import JobRunner
from comfy_worker.runpod_worker import results, updates, worker
from comfy_worker.runpod_worker.shutdown import exit_now
from comfy_worker.settings import Settings

log = logging.getLogger("comfy_worker.stub")


class StubRunner:
    """Sleeps, tells updates, and answers as a job's input says."""

    def run(self, job: dict[str, Any], cancelled: threading.Event, tell: Any, release: Any) -> Any:
        wanted = job["input"]
        if not isinstance(wanted, dict):
            return {"error": "INVALID_INPUT: no object", "code": "INVALID_INPUT"}
        for number in range(wanted.get("updates", 0)):
            tell({"percent": number, "message": "x"})
            time.sleep(0.05)
        if wanted.get("release"):
            release()
        if cancelled.wait(wanted.get("sleep_s", 0)):
            log.info("cancelled %s", job["id"])
            return {"error": "JOB_CANCELLED: cancelled"}
        return answer_to(wanted)


def answer_to(wanted: dict[str, Any]) -> Any:
    """What a job's input wants as its answer."""
    if "raise" in wanted:
        raise ValueError(wanted["raise"])
    if "sdk_log" in wanted:
        RunPodLogger().warn(wanted["sdk_log"])
    if "bytes" in wanted:
        return {"data": "x" * wanted["bytes"]}
    if wanted.get("odd"):
        return {"odd\ud800": ["\udc00", float("nan"), {1}]}
    return {"pid": os.getpid(), "echo": wanted.get("echo"), **wanted.get("answer", {})}


def change_the_sdk() -> None:
    """Give one of the SDK's methods a parameter that the job loop does not know."""
    from runpod.serverless.modules import rp_scale

    known = rp_scale.JobScaler.stop_job

    async def stop_job(self: Any, job_id: str, reason: str = "") -> bool:
        return bool(await known(self, job_id))

    rp_scale.JobScaler.stop_job = stop_job


if __name__ == "__main__":
    settings = Settings.from_env(os.environ)
    logs.configure("INFO")
    results.TRY_S = updates.TRY_S = float(os.environ["TEST_TRY_S"])
    updates.STREAM_END_S = 2.0
    worker.fitness_checks = lambda *_: []
    if "TEST_OTHER_SDK" in os.environ:
        change_the_sdk()
    log.info("no ComfyUI to wait for", extra={"action": "comfyui.ready"})
    worker.run_worker(settings, cast(JobRunner, StubRunner()))
    exit_now(0)
