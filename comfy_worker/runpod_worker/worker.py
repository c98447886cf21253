"""Gives the SDK our job loop, and runs it until the worker must end."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any

import runpod
from runpod.serverless.modules import rp_scale

from comfy_worker.runner import JobRunner
from comfy_worker.runpod_worker import heartbeat, sdk_shape
from comfy_worker.runpod_worker.fitness import fitness_checks
from comfy_worker.runpod_worker.handlers import make_handler, make_stream_handler
from comfy_worker.runpod_worker.job_threads import JobThreads
from comfy_worker.runpod_worker.sdk_checks import leave_out_gpu_checks
from comfy_worker.settings import Settings
from comfy_worker.warm_up import WarmUp

__all__ = ["run_worker"]

log = logging.getLogger(__name__)

# One job on the GPU, one being prepared, two whose files are being encoded.
THREADS = 4
OLD_CONCURRENCY = 2


def run_worker(settings: Settings, runner: JobRunner, warm_up: WarmUp | None = None) -> None:
    """Check the container, then take jobs; returns when the worker has ended its work.

    Args:
        settings: the worker's.
        runner: runs the jobs.
        warm_up: what the worker does before it tells RunPod that it is ready.
    """
    leave_out_gpu_checks()
    for check in fitness_checks(settings, os.environ):
        runpod.serverless.register_fitness_check(check)
    if warm_up is not None:
        # The SDK pings RunPod for the first time after its last check. This one never fails.
        runpod.serverless.register_fitness_check(warm_up.run)
    if sdk_shape.has_known_heartbeat():
        heartbeat.end_with_parent()
    slots = settings.concurrency or 1
    if settings.refresh_worker:  # a job that ran beside the last one would be lost with the worker
        slots = 1
    count = slots if settings.concurrency or settings.refresh_worker else THREADS
    threads = JobThreads(runner, count)
    config: dict[str, Any] = {
        "return_aggregate_stream": True,
        "concurrency_modifier": lambda _current: settings.concurrency or OLD_CONCURRENCY,
        "refresh_worker": settings.refresh_worker,
    }
    # The SDK streams for all jobs or for none: it looks at what kind of function the handler is.
    config["handler"] = (
        make_stream_handler(threads, config) if settings.streaming else make_handler(threads)
    )
    if different := sdk_shape.differences():
        log.warning(
            "runpod %s differs from what this worker expects (%s); the SDK's own job loop runs, "
            "which is slower",
            runpod.__version__,
            ", ".join(different),
            extra={"action": "worker.sdk_loop"},
        )
    else:
        _install_job_loop(settings, threads, slots, count)
    runpod.serverless.start(config)


def _install_job_loop(settings: Settings, threads: JobThreads, slots: int, count: int) -> None:
    # Imported only where the SDK has what it is built on.
    from comfy_worker.runpod_worker.job_loop import JobLoop, LoopOptions

    options = LoopOptions(
        threads=threads,
        slots=slots,
        threads_count=count,
        streaming=settings.streaming,
        one_job=settings.refresh_worker,
        limit_mb=settings.result_limit_mb,
    )
    rp_scale.JobScaler = partial(JobLoop, options=options)
