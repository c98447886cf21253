"""Stand-ins for real models: safetensors files with the right names and shapes, and nothing but holes for data.

They take a few hundred kB of disk each; they can be listed and identified, not run.
"""

from __future__ import annotations

import json
import os
import struct
from math import prod
from pathlib import Path
from typing import Any

from comfy_common import paths
from tests import comfyui_shapes
from tests.comfyui_shapes import Shapes

FAMILIES = {
    "sd15": "sd15",
    "sd15-inpaint": "sd15",
    "sd2": "sd2",
    "sd2-inpaint": "sd2",
    "sdxl": "sdxl",
    "sdxl-inpaint": "sdxl",
    "sdxl-refiner": "sdxl-refiner",
    "sd35-large": "sd35-large",
    "sd35-medium": "sd3-medium",
    "flux-dev": "flux",
    "flux-kontext": "flux",
    "flux-schnell": "flux",
    "flux-fill": "flux",
    "qwen-image": "qwen-image",
    "qwen-image-edit": "qwen-image",
    "z-image": "z-image",
    "wan21-t2v-14b": "wan-14b",
    "wan21-t2v-1.3b": "wan21-1.3b",
    "wan21-i2v-14b": "wan-14b",
    "wan22-t2v-14b": "wan-14b",
    "wan22-i2v-14b": "wan-14b",
    "wan22-ti2v-5b": "wan22-5b",
}
"""Each stand-in, and the name of the family that it belongs to."""


# One module of a LoRA for each family, by the name that its trainers give it, and the width that it takes.
_LORA_MODULES = {
    "sd15": ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768),
    "sd2": ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 1024),
    "sdxl": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048),
    "sdxl-refiner": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 1280),
    "sd3-medium": ("transformer.transformer_blocks.0.attn.to_q", 1536),
    "sd35-large": ("transformer.transformer_blocks.0.attn.to_q", 2432),
    "flux": ("transformer.single_transformer_blocks.37.attn.to_q", 3072),
    "qwen-image": ("transformer_blocks.59.attn.to_q", 3072),
    "z-image": ("diffusion_model.layers.0.attention.to_q", 3840),
    "wan-14b": ("diffusion_model.blocks.0.self_attn.q", 5120),
    "wan21-1.3b": ("diffusion_model.blocks.0.self_attn.q", 1536),
    "wan22-5b": ("diffusion_model.blocks.0.self_attn.q", 3072),
}
_CONTROLNETS: dict[str, Shapes] = {
    "sd15": {
        "zero_convs.0.0.weight": (320, 320, 1, 1),
        "input_blocks.1.1.attn2.to_k.weight": (320, 768),
    },
    "sd2": {
        "zero_convs.0.0.weight": (320, 320, 1, 1),
        "input_blocks.1.1.attn2.to_k.weight": (320, 1024),
    },
    "sdxl": {
        "zero_convs.0.0.weight": (320, 320, 1, 1),
        "input_blocks.4.1.attn2.to_k.weight": (640, 2048),
    },
    "sd35-large": {
        "controlnet_blocks.0.weight": (2432, 2432),
        "pos_embed_input.proj.weight": (2432, 16, 2, 2),
    },
    "flux": {
        "controlnet_blocks.0.weight": (3072, 3072),
        "controlnet_x_embedder.weight": (3072, 64),
    },
    "qwen-image": {
        "controlnet_blocks.0.weight": (3072, 3072),
        "controlnet_x_embedder.weight": (3072, 64),
        "transformer_blocks.0.img_mlp.net.0.proj.weight": (12288, 3072),
    },
}
LORA_FAMILIES = tuple(_LORA_MODULES)
CONTROLNET_FAMILIES = tuple(_CONTROLNETS)


def write_lora_standin(path: Path, family: str) -> None:
    """Write a LoRA of one module for a family of ``LORA_FAMILIES``; its folder must be there."""
    module, width = _LORA_MODULES[family]
    write_sparse(
        path, {f"{module}.lora_A.weight": (4, width), f"{module}.lora_B.weight": (width, 4)}
    )


def write_controlnet_standin(path: Path, family: str, *, union: bool = False) -> None:
    """Write the telling tensors of a ControlNet for a family of ``CONTROLNET_FAMILIES``."""
    union_shapes: Shapes = {"controlnet_mode_embedder.weight": (10, 64)} if union else {}
    write_sparse(path, _CONTROLNETS[family] | union_shapes)


def write_standin(path: Path, model: str) -> None:
    """Write the stand-in for a real model, with all of its tensors.

    Args:
        path: the ``.safetensors`` file to make; its folder must be there.
        model: a key of ``FAMILIES``.
    """
    write_sparse(path, comfyui_shapes.all_shapes(paths.comfyui_dir(os.environ))[model])


def write_sparse(path: Path, shapes: Shapes, config: object = None) -> dict[str, int]:
    """Write a safetensors file of fp16 tensors whose data is a hole, which reads as zeros.

    Args:
        path: the file to make; its folder must be there.
        shapes: the shape of each tensor, by name.
        config: what the file's metadata says of the model's layers; None if it has no metadata.

    Returns:
        For each tensor where its data starts in the file, in bytes.
    """
    header: dict[str, Any] = {}
    if config is not None:
        header["__metadata__"] = {"config": json.dumps(config)}
    starts = {}
    end = 0
    for name, shape in shapes.items():
        starts[name], end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = 8 + len(text)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(data + end)
    return {name: data + start for name, start in starts.items()}
