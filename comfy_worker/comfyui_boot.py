"""Starts ComfyUI with the worker's settings, before the rest of the worker is imported.

ComfyUI takes seconds to start, so this module imports as little as it can: what it leaves out is
imported while ComfyUI starts. Nothing here may touch the network volume in the main thread. A
volume that hangs would hold it for ever, and the fitness check, which reports such a volume, would
never run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfy_common import paths
from comfy_common.container_memory import memory_limit_bytes
from comfy_worker.comfyui.execution import Timeouts
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.supervisor import ComfyUISupervisor
from comfy_worker.imaging.processes import image_processes
from comfy_worker.read_ahead import ReadAhead
from comfy_worker.settings import Settings
from comfy_worker.warm_up_files import model_files_of

__all__ = ["reading_models", "started_comfyui"]

# How much of the memory the models may fill that are read ahead.
READ_AHEAD_SHARE = 0.6


@contextmanager
def started_comfyui(settings: Settings) -> Iterator[ComfyUISupervisor]:
    """Start ComfyUI, which boots in the background, and end it with the block."""
    limits = Timeouts(
        settings.comfy_silence_limit_s, settings.comfy_stall_limit_s, settings.interrupt_limit_s
    )
    comfyui = ComfyUISupervisor(lambda: _launch_options(settings), limits)
    comfyui.start()
    image_processes().start()
    threading.Thread(
        target=_log_models, args=[settings], name="model-locations", daemon=True
    ).start()
    try:
        yield comfyui
    finally:
        comfyui.close()
        image_processes().close()


def _launch_options(settings: Settings) -> LaunchOptions:
    """Return how to start ComfyUI.

    Looks at the network volume, so only the supervisor's thread may call it.
    """
    # Imported late, as the module's text says.
    from comfy_worker.models.cached import cached_models

    return LaunchOptions(
        comfyui_dir=settings.comfyui_dir,
        model_roots=settings.model_roots,
        cached_models=cached_models(settings),
        hub_caches=settings.hub_caches,
        custom_nodes=tuple(paths.custom_node_folders(settings.volume)),
        args=settings.comfy_args,
        log_level=settings.comfy_log_level,
        api_nodes=settings.api_nodes,
        boot_timeout_s=settings.comfy_boot_timeout_s,
        precision=settings.precision,
        xformers=settings.enable_xformers,
        defer_imports=settings.defer_imports,
    )


def reading_models(settings: Settings) -> ReadAhead | None:
    """Begin to read the models of the warm-up; None if there is none.

    They are found in a thread, since the network volume may hang.
    """
    if not settings.warmup:
        return None

    def find() -> list[Path]:
        roots = [settings.comfyui_dir / "models", *settings.model_roots]
        return model_files_of(settings.warmup, paths.workflow_folders(settings.volume), roots)

    reading = ReadAhead(find, memory_limit_bytes() * READ_AHEAD_SHARE)
    reading.start()
    return reading


def _log_models(settings: Settings) -> None:
    """Log where models are; looks at the network volume."""
    # Imported late, as the module's text says.
    from comfy_worker.models.cached import log_cached_models
    from comfy_worker.models.catalog import log_model_locations

    log_model_locations(settings.comfyui_dir, settings.model_roots, settings.volume)
    log_cached_models(settings)
