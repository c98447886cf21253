"""Starts ComfyUI and the job loop of a RunPod Serverless worker."""

from __future__ import annotations

import os
import sys

from comfy_worker import logs
from comfy_worker.comfyui_boot import started_comfyui
from comfy_worker.errors import InvalidSettings
from comfy_worker.runpod_worker.sdk_import import import_sdk
from comfy_worker.runpod_worker.shutdown import exit_now
from comfy_worker.settings import Settings
from comfy_worker.startup import start_times


def main() -> int:
    """Work until RunPod ends the worker; returns the exit status."""
    try:
        settings = Settings.from_env(os.environ)
    except InvalidSettings as error:
        sys.exit(f"{error.code}: {error}")
    logs.configure(settings.log_level)
    start_times.mark("settings read")
    # At its default level the SDK logs every result, pictures included.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    with started_comfyui(settings) as comfyui:
        # ComfyUI boots while the rest of the worker is imported.
        from comfy_worker.runner import JobRunner
        from comfy_worker.shared_services import worker_templates

        start_times.mark("worker imported")
        import_sdk()
        from comfy_worker.runpod_worker.worker import run_worker

        start_times.mark("SDK imported")
        run_worker(settings, JobRunner(settings, comfyui, worker_templates(settings)))
    return 0


if __name__ == "__main__":
    exit_now(main())
