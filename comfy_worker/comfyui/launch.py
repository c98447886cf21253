"""Builds ComfyUI's command line from the worker's options."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfy_worker.comfyui.version import ComfyUIVersion

__all__ = ["PRECISIONS", "LaunchOptions", "has_accelerator", "launch_flags"]

# Only fp32 sets the VAE's precision too: in fp16 the VAE of SDXL gives black pictures.
PRECISIONS = {
    "": (),
    "fp16": ("--fp16-unet", "--fp16-text-enc"),
    "bf16": ("--bf16-unet", "--bf16-text-enc"),
    "fp32": ("--fp32-unet", "--fp32-text-enc", "--fp32-vae"),
    "fp8": ("--fp8_e4m3fn-unet", "--fp8_e4m3fn-text-enc"),
}


@dataclass(frozen=True)
class LaunchOptions:
    """How to start ComfyUI.

    Attributes:
        comfyui_dir: the folder with its ``main.py``.
        model_roots: folders that hold ``checkpoints/``, ``loras/`` ..., searched in order after
            ComfyUI's own.
        custom_nodes: folders of node packs beside ComfyUI's own.
        args: further command line flags (``COMFY_ARGS``); they win over the worker's.
        log_level: DEBUG, INFO, WARNING or ERROR, for ComfyUI's own log.
        api_nodes: whether nodes that call paid services are loaded.
        boot_timeout_s: how long it may take until ``/system_stats`` answers.
        raw_root: a folder in memory, through which pictures leave ComfyUI raw; need not exist.
        precision: fp16, bf16, fp32 or fp8, see :data:`PRECISIONS`; empty: ComfyUI chooses by model
            and GPU.
        xformers: whether ComfyUI may use xformers; None: it does if xformers is installed.
        cached_models: files of other folders that ComfyUI shall find as ``folder/file``.
        hub_caches: the caches of Hugging Face that these files, and some roots, belong to.
        port: of the loopback address; 0: any that is free.
        defer_imports: whether parts of torch are imported only when something uses them.
    """

    comfyui_dir: Path
    model_roots: tuple[Path, ...] = ()
    custom_nodes: tuple[Path, ...] = ()
    args: tuple[str, ...] = ()
    log_level: str = "INFO"
    api_nodes: bool = False
    boot_timeout_s: float = 300.0
    raw_root: Path = Path("/dev/shm")  # noqa: S108
    precision: str = ""
    xformers: bool | None = None
    cached_models: Mapping[str, Path] = field(default_factory=dict)
    hub_caches: tuple[Path, ...] = ()
    port: int = 0
    defer_imports: bool = True


def launch_flags(
    options: LaunchOptions,
    *,
    accelerator: bool,
    version: ComfyUIVersion | None = None,
    memory_bytes: float | None = None,
) -> list[str]:
    """Build the command line flags that follow from the options; those of ``args`` come last.

    Args:
        options: how to start ComfyUI.
        accelerator: whether there is a GPU.
        version: which ComfyUI this is; one that takes every flag if absent.
        memory_bytes: how much memory the container may use; ComfyUI's own cache if absent.
    """
    version = version or ComfyUIVersion()
    flags = [] if options.api_nodes else version.api_node_flags()
    flags += version.asset_flags()
    if memory_bytes is not None:
        flags += version.cache_flags(memory_bytes, options.args)
    flags += version.supported([flag] for flag in _precision_flags(options))
    if options.xformers is False:
        flags.append("--disable-xformers")
    if not accelerator and "--cpu" not in options.args:
        flags.append("--cpu")
    return [*flags, *options.args]


def _precision_flags(options: LaunchOptions) -> list[str]:
    # ComfyUI refuses two flags for the precision of one part of a model. The operator's win.
    if {"--force-fp16", "--force-fp32"} & set(options.args):
        return []
    parts = {_part(flag) for flag in options.args}
    return [flag for flag in PRECISIONS[options.precision] if _part(flag) not in parts]


def _part(flag: str) -> str:
    """Return the part of a model that a precision flag is for: ``unet``, ``enc`` or ``vae``."""
    return flag.rpartition("-")[2]


def has_accelerator(dev: Path = Path("/dev")) -> bool:
    """Whether this machine shows a GPU that ComfyUI can use; without one, it needs ``--cpu``.

    Looks at device files (NVIDIA, WSL, ROCm), since importing torch to ask takes seconds. On
    systems other than Linux ComfyUI finds out by itself.
    """
    if sys.platform != "linux":
        return True
    return any(any(dev.glob(pattern)) for pattern in ("nvidia[0-9]*", "dxg", "kfd"))
