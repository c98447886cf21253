"""Starts ComfyUI and the job loop of a RunPod Serverless worker."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from comfy_worker.comfyui.launch import has_accelerator
from comfy_worker.read_ahead import ReadAhead
from comfy_worker.warm_up_files import torch_libraries

if TYPE_CHECKING:
    from comfy_worker.settings import Settings

# More than torch's libraries have.
MOST_LIBRARY_BYTES = 8e9


def main() -> int:
    """Work until RunPod ends the worker; returns the exit status."""
    # Imports leave no garbage, and the search for it takes a tenth of their time.
    gc.disable()
    # On a cold disk ComfyUI's start waits for these files longer than for anything else.
    ReadAhead(lambda: torch_libraries(has_gpu=has_accelerator()), MOST_LIBRARY_BYTES).start()
    from comfy_worker import logs
    from comfy_worker.errors import InvalidSettings
    from comfy_worker.settings import Settings
    from comfy_worker.startup import start_times

    try:
        settings = Settings.from_env(os.environ)
    except InvalidSettings as error:
        sys.exit(f"{error.code}: {error}")
    logs.configure(settings.log_level, settings.log_format)
    start_times.mark("settings read")
    # At its default level the SDK logs every result, pictures included.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    work(settings)
    return 0


def work(settings: Settings) -> None:
    """Start ComfyUI, and import the rest of the worker while it boots."""
    from comfy_worker.comfyui_boot import reading_models, started_comfyui
    from comfy_worker.startup import collect_garbage_rarely, start_times

    if settings.port_health is not None:
        from comfy_worker.health import serve_health

        serve_health(settings.port_health, is_warmed_up=bool(settings.warmup))
    reading = reading_models(settings)
    with started_comfyui(settings) as comfyui:
        from comfy_worker.metrics import worker_metrics
        from comfy_worker.runner import JobRunner
        from comfy_worker.shared_services import worker_templates

        worker_metrics.keep_for_endpoint(os.environ)
        start_times.mark("worker imported")
        from comfy_worker.runpod_worker.sdk_import import import_sdk

        import_sdk()
        from comfy_worker.runpod_worker.worker import run_worker
        from comfy_worker.template_catalog import keep_catalog
        from comfy_worker.warm_up import WarmUp

        start_times.mark("SDK imported")
        collect_garbage_rarely()
        templates = worker_templates(settings)
        keep_catalog(settings, comfyui, templates, os.environ)
        runner = JobRunner(settings, comfyui, templates)
        warm_up = None
        if settings.warmup:
            warm_up = WarmUp(settings.warmup, templates, runner, reading)
        run_worker(settings, runner, warm_up)


if __name__ == "__main__":
    from comfy_worker.runpod_worker.shutdown import exit_now

    exit_now(main())
