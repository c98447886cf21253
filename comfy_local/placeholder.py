"""Makes a tiny SD 1.5 checkpoint with random weights, for machines that have no model yet.

ComfyUI detects the architecture by the shapes of the tensors, so a small network of the right
family loads and runs like a real one. Its pictures are noise, but they prove that the pipeline
works. The size of the text encoder is fixed, so it is complete, but is stored in 8 bits. TAESD
replaces the VAE. torch is imported only in functions, since the system's Python imports this module
too.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = [
    "checkpoint_shapes",
    "clip_l_shapes",
    "random_weights",
    "taesd_shapes",
    "write_checkpoint",
]

Shapes = dict[str, tuple[int, ...]]

CHANNELS = 320
CONTEXT_DIM = 768
CLIP_PREFIX = "cond_stage_model.transformer."
TAESD_LAST = "taesd_decoder.19"


def write_checkpoint(path: Path) -> None:
    """Write the placeholder checkpoint, the same bytes each time, in about 3 seconds.

    Args:
        path: the ``.safetensors`` file, 200 MB; its folder is created too. A run that is killed
            leaves no file with this name.
    """
    import torch
    from safetensors.torch import save_file

    weights = random_weights(checkpoint_shapes(), seed=0)
    for name, weight in weights.items():
        if name.startswith(CLIP_PREFIX):
            weights[name] = weight.to(torch.float8_e4m3fn)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file(weights, unfinished)
    unfinished.chmod(0o644)  # safetensors makes files that only their owner can read
    unfinished.replace(path)


def random_weights(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Draw fp16 weights that keep the size of a signal from layer to layer.

    Args:
        shapes: the shape of each tensor, by name.
        seed: 0..2**63-1; the same seed gives the same weights.

    Returns:
        For each name a tensor of that shape: normal / sqrt(fan in) with two or more dimensions, 1
        for the weights of norms and for scales, 0 for others. TAESD's last layer is damped around
        grey, so that pixels are not clipped to black or white and differ where the latents differ.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            weight = torch.randn(shape, generator=generator) / prod(shape[1:]) ** 0.5
        else:
            weight = torch.full(shape, float(name.endswith((".weight", "_scale"))))
        weights[name] = weight.to(torch.float16)
        if name.endswith(f"{TAESD_LAST}.weight"):
            weights[name] *= 0.1
        elif name.endswith(f"{TAESD_LAST}.bias"):
            weights[name] += 0.5
    return weights


def checkpoint_shapes(in_channels: int = 4) -> Shapes:
    """The shapes of the placeholder checkpoint, by the tensor names of SD 1.5.

    Args:
        in_channels: the input channels of the UNet: 4, or 9 for an inpaint model.
    """
    return {
        **_prefixed("model.diffusion_model.", _unet_shapes(in_channels)),
        **_prefixed(CLIP_PREFIX, clip_l_shapes()),
        **_prefixed("first_stage_model.", taesd_shapes(4)),
    }


def clip_l_shapes() -> Shapes:
    """The shapes of the complete CLIP-L text encoder."""
    dim = CONTEXT_DIM
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (49408, dim),
        "text_model.embeddings.position_embedding.weight": (77, dim),
    }
    for layer in range(12):
        prefix = f"text_model.encoder.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _layer(f"{prefix}self_attn.{part}", dim, dim)
        shapes |= _layer(f"{prefix}mlp.fc1", 4 * dim, dim) | _layer(
            f"{prefix}mlp.fc2", dim, 4 * dim
        )
        shapes |= _layer(f"{prefix}layer_norm1", dim) | _layer(f"{prefix}layer_norm2", dim)
    return shapes | _layer("text_model.final_layer_norm", dim)


def taesd_shapes(latent_channels: int) -> Shapes:
    """The shapes of TAESD, the smallest VAE that ComfyUI runs.

    Args:
        latent_channels: 4 (SD 1.5, SDXL) or 16 (SD 3, Flux).
    """
    shapes: Shapes = {"vae_scale": (), "vae_shift": ()}
    for half, channels_in, channels_out, blocks, resamplers, last in (
        ("taesd_encoder", 3, latent_channels, (1, 3, 4, 5, 7, 8, 9, 11, 12, 13), (2, 6, 10), 14),
        ("taesd_decoder", latent_channels, 3, (3, 4, 5, 8, 9, 10, 13, 14, 15, 18), (7, 12, 17), 19),
    ):
        first = 0 if half == "taesd_encoder" else 1
        shapes |= _layer(f"{half}.{first}", 64, channels_in, 3, 3)
        for block in blocks:
            for conv in (0, 2, 4):
                shapes |= _layer(f"{half}.{block}.conv.{conv}", 64, 64, 3, 3)
        for resampler in resamplers:
            shapes[f"{half}.{resampler}.weight"] = (64, 64, 3, 3)
        shapes |= _layer(f"{half}.{last}", channels_out, 64, 3, 3)
    return shapes


def _unet_shapes(in_channels: int) -> Shapes:
    """Two levels of one block each; only the upper one has attention.

    ComfyUI detects the family by the widths 320 and 768.
    """
    embedding = 4 * CHANNELS
    shapes = _layer("time_embed.0", embedding, CHANNELS) | _layer(
        "time_embed.2", embedding, embedding
    )
    shapes |= _layer("input_blocks.0.0", CHANNELS, in_channels, 3, 3)
    shapes |= _layer("input_blocks.2.0.op", CHANNELS, CHANNELS, 3, 3)
    shapes |= _layer("output_blocks.1.1.conv", CHANNELS, CHANNELS, 3, 3)
    for block_name in ("input_blocks.1.0", "input_blocks.3.0", "middle_block.0"):
        shapes |= _prefixed(f"{block_name}.", _resnet_shapes(CHANNELS, embedding))
    for block in range(4):
        shapes |= _prefixed(f"output_blocks.{block}.0.", _resnet_shapes(2 * CHANNELS, embedding))
    for block_name in ("input_blocks.1.1", "output_blocks.2.1", "output_blocks.3.1"):
        shapes |= _prefixed(f"{block_name}.", _transformer_shapes())
    return shapes | _layer("out.0", CHANNELS) | _layer("out.2", 4, CHANNELS, 3, 3)


def _resnet_shapes(channels_in: int, embedding: int) -> Shapes:
    shapes = _layer("in_layers.0", channels_in) | _layer("in_layers.2", CHANNELS, channels_in, 3, 3)
    shapes |= _layer("emb_layers.1", CHANNELS, embedding)
    shapes |= _layer("out_layers.0", CHANNELS) | _layer("out_layers.3", CHANNELS, CHANNELS, 3, 3)
    if channels_in != CHANNELS:
        shapes |= _layer("skip_connection", CHANNELS, channels_in, 1, 1)
    return shapes


def _transformer_shapes() -> Shapes:
    shapes = _layer("norm", CHANNELS)
    shapes |= _layer("proj_in", CHANNELS, CHANNELS, 1, 1) | _layer(
        "proj_out", CHANNELS, CHANNELS, 1, 1
    )
    block = "transformer_blocks.0."
    for attention, context in (("attn1", CHANNELS), ("attn2", CONTEXT_DIM)):
        shapes[f"{block}{attention}.to_q.weight"] = (CHANNELS, CHANNELS)
        shapes[f"{block}{attention}.to_k.weight"] = (CHANNELS, context)
        shapes[f"{block}{attention}.to_v.weight"] = (CHANNELS, context)
        shapes |= _layer(f"{block}{attention}.to_out.0", CHANNELS, CHANNELS)
    shapes |= _layer(f"{block}ff.net.0.proj", 8 * CHANNELS, CHANNELS)
    shapes |= _layer(f"{block}ff.net.2", CHANNELS, 4 * CHANNELS)
    for norm in ("norm1", "norm2", "norm3"):
        shapes |= _layer(f"{block}{norm}", CHANNELS)
    return shapes


def _layer(name: str, *shape: int) -> Shapes:
    """A layer's weight of this shape, and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
