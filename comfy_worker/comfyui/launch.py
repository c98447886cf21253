"""How ComfyUI is to be started: what the worker chooses, and the command line flags that follow.

Owns the words. Starts nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PRECISIONS", "LaunchOptions", "has_accelerator", "launch_flags"]

# The VAE is left to ComfyUI, but for fp32: in fp16 that of SDXL gives black pictures.
PRECISIONS = {
    "": (),
    "fp16": ("--fp16-unet", "--fp16-text-enc"),
    "bf16": ("--bf16-unet", "--bf16-text-enc"),
    "fp32": ("--fp32-unet", "--fp32-text-enc", "--fp32-vae"),
    "fp8": ("--fp8_e4m3fn-unet", "--fp8_e4m3fn-text-enc"),
}


@dataclass(frozen=True)
class LaunchOptions:
    """How ComfyUI is to be started.

    Attributes:
        comfyui_dir: the folder with its ``main.py``.
        model_roots: folders that hold ``checkpoints/``, ``loras/`` ..., searched in order after ComfyUI's own.
        custom_nodes: folders of node packs beside ComfyUI's own.
        args: further command line flags (``COMFY_ARGS``); the last word is theirs.
        log_level: DEBUG, INFO, WARNING or ERROR, for ComfyUI's own log.
        api_nodes: whether nodes that call paid services are loaded.
        boot_timeout_s: how long it may take until ``/system_stats`` answers.
        raw_root: a folder in memory, through which pictures leave ComfyUI raw; need not be there.
        precision: fp16, bf16, fp32 or fp8, see :data:`PRECISIONS`; empty: ComfyUI chooses by model and GPU.
        xformers: whether ComfyUI may use xformers; None: it does where it is installed.
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


def launch_flags(options: LaunchOptions, *, accelerator: bool) -> list[str]:
    """The flags that follow from the options, those of ``args`` last.

    Args:
        options: how ComfyUI is to be started.
        accelerator: whether there is a GPU.
    """
    flags = [] if options.api_nodes else ["--disable-api-nodes"]
    # ComfyUI refuses two flags for the precision of one part; those of `args` hold.
    parts = {flag.rpartition("-")[2] for flag in options.args}
    if not {"--force-fp16", "--force-fp32"} & set(options.args):
        flags += [flag for flag in PRECISIONS[options.precision] if flag.rpartition("-")[2] not in parts]
    if options.xformers is False:
        flags.append("--disable-xformers")
    if not accelerator and "--cpu" not in options.args:
        flags.append("--cpu")
    return [*flags, *options.args]


def has_accelerator(dev: Path = Path("/dev")) -> bool:
    """Whether this machine shows a GPU that ComfyUI can use; where none is, it has to be told ``--cpu``.

    Looks at device files (NVIDIA, WSL, ROCm), since importing torch to ask takes seconds; on systems other than
    Linux ComfyUI finds out by itself.
    """
    if sys.platform != "linux":
        return True
    return any(any(dev.glob(pattern)) for pattern in ("nvidia[0-9]*", "dxg", "kfd"))
