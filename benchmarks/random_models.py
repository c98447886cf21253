"""Writes models with random weights in the shapes of real ones, for machines without the real ones.

A GPU needs the same time for a step whatever the weights are. Most blocks of a file are holes: the
27 GB of SDXL and Z-Image need about 4.4 GB of disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from comfy_common import paths
from tests import comfyui_shapes, placeholders

__all__ = ["MODELS", "SDXL", "Z_IMAGE", "first_layers", "write_models"]

Shapes = dict[str, tuple[int, ...]]

SDXL, Z_IMAGE = "sdxl", "z-image"
# By model, the files below the folder of models, and the shapes of each by its name in
# tests/comfyui_shapes.py.
MODELS: dict[str, dict[str, str]] = {
    SDXL: {"checkpoints/random-sdxl.safetensors": "sdxl"},
    Z_IMAGE: {
        "diffusion_models/random-z-image.safetensors": "z-image",
        "text_encoders/random-qwen-3-4b.safetensors": "qwen3-4b",
        "vae/random-ae.safetensors": "vae-16",
    },
}
# A number in a tensor's name that counts equal layers.
LAYER = re.compile(r"(?:^|\.)(?:layers|transformer_blocks|resblocks)\.(\d+)(?=\.)")


def write_models(
    folder: Path,
    model: str,
    *,
    tiny: bool = False,
    shapes: Mapping[str, Shapes] | None = None,
) -> list[Path]:
    """Write the files of a model; those that are there already are kept.

    Args:
        folder: the folder of models.
        model: ``sdxl`` or ``z-image``.
        tiny: write only the first of equal layers. ComfyUI still knows the family by such a file.
        shapes: by name, the shapes; default: those of the installed ComfyUI.

    Returns:
        The files.
    """
    known = shapes or comfyui_shapes.all_shapes(paths.comfyui_dir(os.environ))
    files = []
    for name, shapes_name in MODELS[model].items():
        path = folder / name
        files.append(path)
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".part")
        wanted = known[shapes_name]
        placeholders.write_thin(unfinished, first_layers(wanted) if tiny else wanted)
        unfinished.replace(path)
    return files


def first_layers(shapes: Shapes) -> Shapes:
    """Leave out all but the first of equal layers."""
    return {name: shape for name, shape in shapes.items() if set(LAYER.findall(name)) <= {"0"}}
