"""Writes the toy model as a checkpoint that ComfyUI loads as SD 3."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from comfy_local.placeholder import clip_l_shapes, taesd_shapes
from comfy_local.toy_model.decoder import DistanceNetwork
from comfy_local.toy_model.diffusion import DEPTH, PATCH, WIDTH, DiffusionNetwork
from comfy_local.toy_model.encoder import EncoderNetwork
from comfy_local.toy_model.scenes import CHANNELS, REQUEST_SIZE
from comfy_local.toy_model.taesd import decoder_weights, encoder_weights
from comfy_local.toy_model.text import CLIP_WIDTH, TextNetwork

__all__ = ["checkpoint", "write_packed"]

MODEL = "model.diffusion_model."
CLIP = "text_encoders.clip_l.transformer."
VAE = "first_stage_model."
POOLED_WIDTH = 2048  # CLIP-L's and CLIP-G's pooled vectors side by side
T5_WIDTH = 4096
# They undo ComfyUI's scaling of SD 3's latents.
LATENT_SCALE = 1.5305
LATENT_SHIFT = 0.0609


def checkpoint(
    distances: DistanceNetwork,
    encoder: EncoderNetwork,
    text: TextNetwork,
    tokens: Sequence[int],
    diffusion: DiffusionNetwork,
) -> dict[str, Tensor]:
    """Put the networks into the shapes of SD 3, CLIP-L and TAESD.

    Args:
        distances: the decoder's part.
        encoder: the encoder's part.
        text: the text network.
        tokens: the CLIP token of each row of the text network from row 1 on.
        diffusion: the diffusion network, without a LoRA.

    Returns:
        The tensors of the checkpoint, fp16, by name.
    """
    tensors = {
        **_diffusion_tensors(diffusion),
        **_clip_tensors(text, tokens),
        **_vae_tensors(distances, encoder),
    }
    return dict(sorted(tensors.items()))


def write_packed(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a compressed safetensors file, and its hash before the compression beside it.

    Args:
        tensors: by name.
        path: ends with `.safetensors.gz`; its folder must exist.
    """
    content = save(dict(tensors))
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    name = path.name.removesuffix(".gz")
    digest = hashlib.sha256(content).hexdigest()
    path.with_name(path.name.replace(".safetensors.gz", ".sha256")).write_text(
        f"{digest}  {name}\n", encoding="ascii"
    )


def _padded(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Values in the corner of a tensor of zeros."""
    tensor = torch.zeros(tuple(shape), dtype=torch.float16)
    tensor[tuple(slice(0, length) for length in values.shape)] = values.detach().half()
    return tensor


def _zero_layer(name: str, *shape: int) -> dict[str, Tensor]:
    weight, bias = torch.zeros(shape).half(), torch.zeros(shape[0]).half()
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _diffusion_tensors(network: DiffusionNetwork) -> dict[str, Tensor]:
    tensors = {MODEL + name: value.half() for name, value in network.state_dict().items()}
    embedder = f"{MODEL}x_embedder.proj.weight"
    tensors[embedder] = tensors[embedder].view(WIDTH, CHANNELS, PATCH, PATCH)
    embedder = f"{MODEL}y_embedder.mlp.0.weight"
    tensors[embedder] = _padded(tensors[embedder], (WIDTH, POOLED_WIDTH))
    tensors |= _zero_layer(f"{MODEL}context_embedder", WIDTH, T5_WIDTH)
    for block in range(DEPTH):
        is_last = block == DEPTH - 1
        prefix = f"{MODEL}joint_blocks.{block}.context_block."
        tensors |= _zero_layer(f"{prefix}attn.qkv", 3 * WIDTH, WIDTH)
        changes = 2 if is_last else 6
        tensors |= _zero_layer(f"{prefix}adaLN_modulation.1", changes * WIDTH, WIDTH)
        if not is_last:
            tensors |= _zero_layer(f"{prefix}attn.proj", WIDTH, WIDTH)
            tensors |= _zero_layer(f"{prefix}mlp.fc1", 4 * WIDTH, WIDTH)
            tensors |= _zero_layer(f"{prefix}mlp.fc2", WIDTH, 4 * WIDTH)
    return tensors


def _clip_tensors(network: TextNetwork, tokens: Sequence[int]) -> dict[str, Tensor]:
    shapes = clip_l_shapes()
    trained = {
        f"text_model.encoder.{name}": value
        for name, value in network.state_dict().items()
        if name.startswith("layers.")
    }
    tensors = {}
    for name, shape in shapes.items():
        if name in trained:
            tensors[CLIP + name] = _padded(trained[name], shape)
        else:
            is_norm = "layer_norm" in name and name.endswith("weight")
            tensors[CLIP + name] = torch.full(shape, float(is_norm)).half()
    embeddings = f"{CLIP}text_model.embeddings."
    known = tensors[f"{embeddings}token_embedding.weight"]
    known[torch.tensor(tokens), : network.token_embedding.shape[1]] = (
        network.token_embedding[1:].detach().half()
    )
    positions = f"{embeddings}position_embedding.weight"
    tensors[positions] = _padded(network.position_embedding, tensors[positions].shape)
    for name, value in network.final_layer_norm.named_parameters():
        # Only the request leaves the encoder.
        tensors[f"{CLIP}text_model.final_layer_norm.{name}"] = _padded(
            value[:REQUEST_SIZE], (CLIP_WIDTH,)
        )
    tensors[f"{CLIP}text_projection.weight"] = torch.eye(CLIP_WIDTH).half()
    return tensors


def _vae_tensors(distances: DistanceNetwork, encoder: EncoderNetwork) -> dict[str, Tensor]:
    tensors = {
        VAE + name: torch.zeros(shape).half() for name, shape in taesd_shapes(CHANNELS).items()
    }
    for name, value in decoder_weights(distances).items():
        tensors[f"{VAE}taesd_decoder.{name}"] = value.half()
    for name, value in encoder_weights(encoder).items():
        tensors[f"{VAE}taesd_encoder.{name}"] = value.half()
    tensors[f"{VAE}vae_scale"] = torch.tensor(LATENT_SCALE)
    tensors[f"{VAE}vae_shift"] = torch.tensor(LATENT_SHIFT)
    return tensors
