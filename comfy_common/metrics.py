"""Declares the metrics of a worker and of the local endpoint, and measures the machine.

No label holds a job's id, a client's text or the name of a file.
"""

from __future__ import annotations

import subprocess

from comfy_common.container_memory import free_memory_mb, memory_limit_bytes
from comfy_common.nvidia_smi import query_gpus
from comfy_common.prometheus import Metric, Samples

__all__ = [
    "ENDPOINT_METRICS",
    "FOLDER_VARIABLE",
    "MACHINE_METRICS",
    "WORKER_METRICS",
    "measure_machine",
]

# The environment variable with the folder into which the workers of a local endpoint write their
# metrics.
FOLDER_VARIABLE = "COMFY_METRICS_FOLDER"

# Bounds of buckets in seconds: from a small picture that is cached to a long video.
JOB_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
START_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)

JOBS = Metric(
    "comfy_worker_jobs_total",
    "counter",
    "Jobs that ended, by outcome (`done`, `failed`) and error code",
    ("outcome", "code"),
)
DURATION = Metric(
    "comfy_worker_job_seconds",
    "histogram",
    "Time from taking a job to its answer, for jobs that were done",
    buckets=JOB_SECONDS,
)
STAGES = Metric(
    "comfy_worker_stage_seconds",
    "histogram",
    "Time in each stage of a job: `wait`, `prepare`, `execute`, `collect`",
    ("stage",),
    JOB_SECONDS,
)
STEPS = Metric("comfy_worker_steps_total", "counter", "Sampling steps of jobs that were done")
FILES = Metric("comfy_worker_output_files_total", "counter", "Files in results")
BYTES = Metric(
    "comfy_worker_output_bytes_total", "counter", "Size of files in results, as bytes before base64"
)
WARNINGS = Metric("comfy_worker_warnings_total", "counter", "Warnings in results")
STARTS = Metric(
    "comfy_worker_start_seconds",
    "histogram",
    "Time from the start of the worker's process to each moment of its start",
    ("moment",),
    START_SECONDS,
)
WORKER_METRICS = (JOBS, DURATION, STAGES, STEPS, FILES, BYTES, WARNINGS, STARTS)

WAITING = Metric("comfy_endpoint_jobs_waiting", "gauge", "Jobs in the queue")
RUNNING = Metric("comfy_endpoint_jobs_running", "gauge", "Jobs that workers have taken")
ENDED = Metric(
    "comfy_endpoint_jobs_total", "counter", "Jobs that ended, by RunPod's status", ("status",)
)
WORKERS = Metric(
    "comfy_endpoint_workers", "gauge", "Workers by state, as `/health` counts them", ("state",)
)
ENDPOINT_METRICS = (WAITING, RUNNING, ENDED, WORKERS)

MEMORY_FREE = Metric(
    "comfy_machine_memory_free_bytes", "gauge", "Memory that the container may still take"
)
MEMORY_LIMIT = Metric(
    "comfy_machine_memory_limit_bytes", "gauge", "Memory that the container may take in all"
)
GPU_USED = Metric("comfy_gpu_memory_used_bytes", "gauge", "Used memory of each GPU", ("gpu",))
GPU_MEMORY = Metric("comfy_gpu_memory_bytes", "gauge", "Memory of each GPU", ("gpu",))
GPU_BUSY = Metric(
    "comfy_gpu_busy_ratio", "gauge", "Share of the last second in which the GPU worked", ("gpu",)
)
MACHINE_METRICS = (MEMORY_FREE, MEMORY_LIMIT, GPU_USED, GPU_MEMORY, GPU_BUSY)
# By nvidia-smi's name: the metric, and the factor from nvidia-smi's unit to the metric's.
GPU_FIELDS = {
    "memory.used": (GPU_USED, 2.0**20),
    "memory.total": (GPU_MEMORY, 2.0**20),
    "utilization.gpu": (GPU_BUSY, 0.01),
}


def measure_machine(samples: Samples) -> None:
    """Set the metrics of memory and GPUs. Takes a fraction of a second on a machine with a GPU."""
    samples.set(MEMORY_FREE, free_memory_mb() * 1e6)
    samples.set(MEMORY_LIMIT, memory_limit_bytes())
    try:
        lines = query_gpus(*GPU_FIELDS, units=False).splitlines()
    except (OSError, subprocess.SubprocessError):  # there is no GPU, or its driver does not answer
        return
    for number, line in enumerate(lines):
        for (metric, factor), text in zip(GPU_FIELDS.values(), line.split(","), strict=True):
            # A part of a GPU (MIG) has no utilization: nvidia-smi writes [N/A].
            if text.strip().isdecimal():
                samples.set(metric, int(text) * factor, str(number))
