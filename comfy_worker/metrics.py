"""Counts jobs and measures the start of this worker, for Prometheus.

`GET /metrics` on PORT_HEALTH shows the numbers. For a local endpoint they are saved to a file.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from comfy_common.metrics import (
    BYTES,
    DURATION,
    FILES,
    FOLDER_VARIABLE,
    JOBS,
    MACHINE_METRICS,
    STAGES,
    STARTS,
    STEPS,
    WARNINGS,
    WORKER_METRICS,
    measure_machine,
)
from comfy_common.prometheus import Samples
from comfy_worker.job_record import JobRecord
from comfy_worker.startup import StartTimes, start_times

__all__ = ["WorkerMetrics", "worker_metrics"]

log = logging.getLogger(__name__)


class WorkerMetrics:
    """The metrics of one worker. Threads may share it.

    Args:
        starts: the moments of the worker's start.
    """

    def __init__(self, starts: StartTimes) -> None:
        self._starts = starts
        self._jobs = Samples()
        self._file: Path | None = None

    def keep_for_endpoint(self, environ: Mapping[str, str]) -> None:
        """Save the metrics now and after each change, if a local endpoint started this worker."""
        if folder := environ.get(FOLDER_VARIABLE):
            self._file = Path(folder) / f"{environ['RUNPOD_POD_ID']}.json"
            self._starts.listen(self._save)
            self._save()

    def count(self, record: JobRecord, duration_ms: float) -> None:
        """Count a job that has ended.

        Args:
            record: what the log says about it.
            duration_ms: the time from taking the job to its answer.
        """
        self._jobs.add(JOBS, 1, "failed" if record.code else "done", record.code)
        for stage, milliseconds in record.stages.items():
            self._jobs.observe(STAGES, milliseconds / 1000, stage)
        if not record.code:
            self._jobs.observe(DURATION, duration_ms / 1000)
            self._jobs.add(STEPS, record.steps if isinstance(record.steps, int) else 0)
            self._jobs.add(FILES, record.files)
            self._jobs.add(BYTES, record.bytes)
            self._jobs.add(WARNINGS, record.warnings)
        self._save()

    def text(self) -> str:
        """Return the page that Prometheus reads, with the memory and the GPUs as they are now."""
        samples = self._current()
        measure_machine(samples)
        return samples.text((*WORKER_METRICS, *MACHINE_METRICS))

    def _current(self) -> Samples:
        samples = Samples()
        samples.merge(self._jobs.rows())
        for moment, seconds in self._starts.state()["seconds"].items():
            samples.observe(STARTS, seconds, moment)
        return samples

    def _save(self) -> None:
        """Write the file in one step, so that a reader sees the old or the new content."""
        if self._file is None:
            return
        unfinished = self._file.with_suffix(f".{os.urandom(4).hex()}.part")
        try:
            unfinished.write_text(json.dumps(self._current().rows()), encoding="utf-8")
            unfinished.replace(self._file)
        except OSError as error:
            log.warning(
                "the metrics cannot be saved: %s", error, extra={"action": "metrics.failed"}
            )


worker_metrics = WorkerMetrics(start_times)
