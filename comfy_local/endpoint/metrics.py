"""Answers Prometheus: the endpoint's own numbers, and the sum of what its workers have counted.

Each worker saves its metrics to a file. When it has ended, its file is added to a sum and removed,
so that no counter ever decreases.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from fastapi import APIRouter, Response

from comfy_common.metrics import (
    ENDED,
    ENDPOINT_METRICS,
    MACHINE_METRICS,
    RUNNING,
    WAITING,
    WORKER_METRICS,
    WORKERS,
    measure_machine,
)
from comfy_common.prometheus import CONTENT_TYPE, Samples

from .jobs import Jobs
from .workers import WorkerPool

__all__ = ["EndpointMetrics", "metrics_routes"]


class EndpointMetrics:
    """The metrics of an endpoint and its workers; belongs to the endpoint's event loop.

    Args:
        jobs: The jobs of the endpoint.
        workers: The worker pool.
        folder: Where the workers save their metrics.
    """

    def __init__(self, jobs: Jobs, workers: WorkerPool, folder: Path) -> None:
        self._jobs = jobs
        self._workers = workers
        self._folder = folder
        self._of_ended_workers = Samples()

    async def text(self) -> str:
        """Returns the page that Prometheus reads."""
        samples = Samples()
        await asyncio.to_thread(measure_machine, samples)
        self._add_workers(samples)
        counts = self._jobs.counts()
        samples.set(WAITING, counts["inQueue"])
        samples.set(RUNNING, counts["inProgress"])
        for status, count in self._jobs.ended().items():
            samples.add(ENDED, count, status)
        for state, count in self._workers.counts().items():
            samples.set(WORKERS, count, state)
        return samples.text((*ENDPOINT_METRICS, *WORKER_METRICS, *MACHINE_METRICS))

    def _add_workers(self, samples: Samples) -> None:
        running = {worker.worker_id for worker in self._workers.workers}
        for file in self._folder.glob("*.json"):
            rows = json.loads(file.read_bytes())
            if file.stem in running:
                samples.merge(rows)
            else:
                self._of_ended_workers.merge(rows)
                file.unlink()
        samples.merge(self._of_ended_workers.rows())


def metrics_routes(metrics: EndpointMetrics) -> APIRouter:
    """Returns the route ``/metrics``."""
    router = APIRouter()

    @router.get("/metrics")
    async def show() -> Response:
        return Response(await metrics.text(), media_type=CONTENT_TYPE)

    return router
