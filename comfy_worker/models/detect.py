"""Which model family a safetensors header belongs to, read in milliseconds, without loading the file.

This module owns the rules: a family shows in the names of a few tensors and in one width. They follow what
ComfyUI's own loaders look at (``comfy/model_detection.py``, ``lora.py``, ``controlnet.py``). Where the names
leave a doubt there is no family, never a guess: callers warn then and refuse nothing. It knows no graph, and it
never unpickles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from comfy_worker.models.families import (
    AURAFLOW,
    CHROMA,
    COSMOS2,
    FAMILIES,
    FLUX,
    FLUX2,
    HIDREAM,
    HUNYUAN_DIT,
    HUNYUAN_IMAGE,
    HUNYUAN_VIDEO,
    HUNYUAN_VIDEO_15,
    LTXV,
    LUMINA2,
    MOCHI,
    OMNIGEN2,
    PIXART,
    QWEN_IMAGE,
    SD2,
    SD3_MEDIUM,
    SD15,
    SD35_LARGE,
    SDXL,
    SDXL_REFINER,
    SVD,
    WAN21_1B,
    WAN22_5B,
    WAN_14B,
    Z_IMAGE,
    Family,
)
from comfy_worker.models.safetensors import read_header

__all__ = ["FAMILIES", "Family", "ModelKind", "compatible", "family_of_header", "identify"]

Header = Mapping[str, Mapping[str, Any]]
Kind = Literal["checkpoint", "diffusion_model", "lora", "controlnet", "text_encoder", "vae", "unknown"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ModelKind:
    """What a model file is.

    Args:
        kind: what it is used as; a checkpoint is a diffusion model with its text encoder or VAE beside it.
        family: the family it belongs to, or for an add-on fits; None where the header does not tell.
        inpaint: it takes a mask beside the image.
        union: a ControlNet of several types, which must be told the type.
    """

    kind: Kind
    family: Family | None = None
    inpaint: bool = False
    union: bool = False


def compatible(base: Family | None, addon: Family | None) -> bool | None:
    """Whether a LoRA or ControlNet fits a base model.

    Args:
        base: the family of the checkpoint or diffusion model.
        addon: the family of the LoRA or ControlNet.

    Returns:
        None where one of the two is unknown: warn, do not refuse.
    """
    if base is None or addon is None:
        return None
    return base == addon or (bool(base.lineage) and base.lineage == addon.lineage)


def identify(path: Path) -> ModelKind:
    """Tell what a model file is; cached until the file's size or time changes.

    Args:
        path: a file in one of ComfyUI's model folders. Anything but ``.safetensors`` (``.sft``) is unknown.

    Raises:
        InvalidValue: it is named so but is no whole safetensors file, or may not be read.
        OSError: it is gone.
    """
    if path.suffix.lower() not in {".safetensors", ".sft"}:
        return ModelKind("unknown")
    state = path.stat()
    return _identify(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _identify(path: Path, _size: int, _mtime_ns: int) -> ModelKind:
    return family_of_header(read_header(path))


def family_of_header(header: Header) -> ModelKind:
    """Tell what a model file is by its tensors.

    Args:
        header: for each tensor's name at least its ``shape``, as a safetensors header has them.

    Returns:
        The kind, ``unknown`` where no rule holds, and the family where it is sure.
    """
    shapes = {name: tuple(tensor["shape"]) for name, tensor in header.items()}
    for rule in (_controlnet, _lora, _base_model, _text_encoder_or_vae):
        found = rule(shapes)
        if found is not None:
            return found
    return ModelKind("unknown")


# Families of one architecture differ in a width: of the text that a UNet attends to, or of the model itself.
UNET_CONTEXT = {768: SD15, 1024: SD2, 1280: SDXL_REFINER, 2048: SDXL}
UNET_VECTOR = {2560: SDXL_REFINER, 2816: SDXL}
SD3_WIDTH = {1536: SD3_MEDIUM, 2432: SD35_LARGE}
HUNYUAN_WIDTH = {2048: HUNYUAN_VIDEO_15, 3072: HUNYUAN_VIDEO, 3584: HUNYUAN_IMAGE}
LUMINA_WIDTH = {2304: LUMINA2, 3840: Z_IMAGE}
WAN_WIDTH = {1536: WAN21_1B, 3072: WAN22_5B, 5120: WAN_14B}

MODEL_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.", "net.", "model.")
BESIDE_A_MODEL = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.")

# Tensors that only this architecture has, and its family, or the tensor whose first dimension tells the family.
BASE_MODELS: tuple[tuple[set[str], Family | tuple[str, Mapping[int, Family]]], ...] = (
    ({"joint_blocks.0.context_block.attn.qkv.weight"}, ("x_embedder.proj.weight", SD3_WIDTH)),
    (
        {"transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"},
        ("pos_embed.proj.weight", SD3_WIDTH),
    ),
    ({"double_layers.0.attn.w1q.weight"}, AURAFLOW),
    ({"mlp_t5.0.weight"}, HUNYUAN_DIT),
    ({"txt_in.individual_token_refiner.blocks.0.norm1.weight"}, ("img_in.proj.weight", HUNYUAN_WIDTH)),
    ({"distilled_guidance_layer.norms.0.scale"}, CHROMA),
    ({"distilled_guidance_layer.0.norms.0.scale"}, CHROMA),
    ({"double_stream_modulation_img.lin.weight"}, ("img_in.weight", {6144: FLUX2})),
    ({"double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"}, ("img_in.weight", {3072: FLUX})),
    ({"single_transformer_blocks.0.attn.to_q.weight", "x_embedder.weight"}, ("x_embedder.weight", {3072: FLUX})),
    ({"t5_yproj.weight"}, MOCHI),
    ({"adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias"}, PIXART),
    (
        {"adaln_single.emb.timestep_embedder.linear_1.bias"},
        ("transformer_blocks.0.attn1.to_q.weight", {2048: LTXV}),
    ),
    ({"t_block.1.weight"}, PIXART),
    ({"cap_embedder.1.weight"}, ("cap_embedder.1.weight", LUMINA_WIDTH)),
    ({"head.modulation"}, ("patch_embedding.weight", WAN_WIDTH)),
    ({"caption_projection.0.linear.weight"}, HIDREAM),
    ({"blocks.0.mlp.layer1.weight"}, COSMOS2),
    ({"time_caption_embed.timestep_embedder.linear_1.bias"}, OMNIGEN2),
    ({"txt_norm.weight", "img_in.weight"}, QWEN_IMAGE),
)


def _base_model(shapes: Shapes) -> ModelKind | None:
    prefix = next((p for p in MODEL_PREFIXES if any(name.startswith(p) for name in shapes)), "")
    model = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    family: Family | None
    if model.keys() & {"input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight"}:
        family = _unet_family(model)
    else:
        told_by = next((told_by for markers, told_by in BASE_MODELS if markers <= model.keys()), None)
        if told_by is None:
            return None
        family = told_by if isinstance(told_by, Family) else told_by[1].get(_dim(model, 0, told_by[0]))
    kind: Kind = "checkpoint" if any(name.startswith(BESIDE_A_MODEL) for name in shapes) else "diffusion_model"
    # A mask and a masked image come in beside the latent: 4 + 1 + 4 channels; Flux Fill: 96 in patches of 2x2.
    inpaint = _dim(model, 1, "input_blocks.0.0.weight", "conv_in.weight") == 9 or (
        family == FLUX and _dim(model, 1, "img_in.weight", "x_embedder.weight") == 384
    )
    return ModelKind(kind, family, inpaint=inpaint)


def _unet_family(shapes: Shapes) -> Family | None:
    if any("time_stack" in name or "temporal_transformer_blocks" in name for name in shapes):
        return SVD
    for name in shapes:
        if name.endswith(("attn2.to_k.weight", "attn2.to_k.down")):
            return UNET_CONTEXT.get(_dim(shapes, 1, name))
    # The small SDXL ControlNets have no attention.
    names = ("label_emb.0.0.weight", "control_model.label_emb.0.0.weight", "add_embedding.linear_1.weight")
    return UNET_VECTOR.get(_dim(shapes, 1, *names))


def _controlnet(shapes: Shapes) -> ModelKind | None:
    names = shapes.keys()
    family: Family | None
    if names & {
        "lora_controlnet",
        "zero_convs.0.0.weight",
        "control_model.zero_convs.0.0.weight",
        "controlnet_cond_embedding.conv_in.weight",
    }:
        family = _unet_family(shapes)
    elif names & {"controlnet_blocks.0.weight", "controlnet_blocks.0.linear.weight"}:
        family = _transformer_controlnet_family(shapes)
    elif "after_proj_list.18.bias" in names:
        family = HUNYUAN_DIT
    elif names & {"adapter.body.0.resnets.0.block1.weight", "body.0.block1.weight", "body.0.in_conv.weight"}:
        # A T2I-Adapter takes the picture in blocks of 16x16 pixels for SDXL, of 8x8 for SD 1.5.
        family = SDXL if _dim(shapes, 1, "adapter.conv_in.weight", "conv_in.weight") in {256, 768} else SD15
    else:
        return None
    # A mask comes in beside 16 latent channels, in patches of 2x2 but for SD 3.
    inpaint = _dim(shapes, 1, "pos_embed_input.proj.weight", "controlnet_x_embedder.weight") in {17, 68}
    union = bool(names & {"task_embedding", "controlnet_mode_embedder.weight"})
    return ModelKind("controlnet", family, inpaint=inpaint, union=union)


def _transformer_controlnet_family(shapes: Shapes) -> Family | None:
    if "pos_embed_input.proj.weight" in shapes:
        return SD3_WIDTH.get(_dim(shapes, 0, "pos_embed_input.proj.weight"))
    if "transformer_blocks.0.img_mlp.net.0.proj.weight" in shapes:
        return QWEN_IMAGE
    return {3072: FLUX}.get(_dim(shapes, 0, "controlnet_x_embedder.weight", "img_in.weight"))


# What a LoRA appends to the name of the module that it changes: LoRA, LoHa, LoKr, OFT, a full difference.
LORA_NAME = re.compile(
    r"(?P<module>.+?)[._](?P<part>lora[12]?[._](?:down|up|A|B)(?:\.\w+)?\.weight|"
    r"lora_linear_layer\.(?:down|up)\.weight|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|oft_(?:blocks|diag)|diff)"
)
LORA_INPUT_SIDE = re.compile(r".*[._](?:down|A)\b|hada_w1_b|lokr_w[12](?:_b)?$|diff")
LORA_PREFIX = re.compile(
    r"(?:(?:lora_unet|lora_transformer|lycoris)_+|(?:base_model|model|diffusion_model|transformer|unet)\.)+"
)
UNET_BLOCK = r"(?:(?:down|up|input|output)_blocks|mid_block|middle_block)_"

# Modules that tell a LoRA's family, names with "_" for ".", and the family, or the families by the module's input
# width. The first rule that holds for a module decides. Flux, HunyuanVideo and the small Flux 2 name their modules
# alike and have one width; only blocks beyond the last one of the others, and the modulation, tell them apart.
LORA_RULES: tuple[tuple[re.Pattern[str], Family | Mapping[int, Family]], ...] = tuple(
    (re.compile(pattern), told_by)
    for pattern, told_by in (
        (r"double_stream_blocks_\d", HIDREAM),
        (r"joint_transformer_blocks_\d|(?:double|single)_layers_\d", AURAFLOW),
        (r"distilled_guidance_layer_", CHROMA),
        (
            r"double_blocks_(?:\d+_(?:img|txt)_(?:mlp_fc1|mod_linear)|19_)|single_(?:transformer_)?blocks_3[89]_",
            HUNYUAN_WIDTH,
        ),
        (
            r"double_blocks_(?:[89]|1\d|\d_(?:img|txt)_mod_lin)|single_blocks_(?:2[4-9]|3\d|\d+_modulation_lin)|"
            r"single_transformer_blocks_(?:2[4-9]|3\d)_",
            {3072: FLUX},
        ),
        (r"(?:double|single)_blocks_\d|single_transformer_blocks_\d", {6144: FLUX2}),
        (r"joint_blocks_\d+_(?:x|context)_block_", SD3_WIDTH),
        (r"transformer_blocks_(?:\d+_(?:img|txt)_(?:mlp|mod)|[2-5]\d_attn)_", {3072: QWEN_IMAGE}),
        (r"transformer_blocks_\d+_attn_(?:to|add)_", SD3_WIDTH),
        (r"transformer_blocks_\d+_attn[12]_to_[qkv]$", {1152: PIXART, 2048: LTXV}),
        (r"blocks_\d+_(?:(?:self|cross)_attn_[qkvo]|attn[12]_to_[qkv]|ffn_0|ffn_net_0_proj)$", WAN_WIDTH),
        (r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|feed_forward)_", LUMINA_WIDTH),
        (UNET_BLOCK + r".*attn2_to_[kv]$", UNET_CONTEXT),
        (UNET_BLOCK + r".*transformer_blocks_[2-9]_", SDXL),
        (r"lora_te_text_model_.*self_attn_[qkv]_proj$", {768: SD15, 1024: SD2}),
    )
)


def _lora(shapes: Shapes) -> ModelKind | None:
    widths = _lora_input_widths(shapes)
    if not widths:
        return None
    for pattern, told_by in LORA_RULES:
        for module, width in widths.items():
            if pattern.match(module):
                family = told_by if isinstance(told_by, Family) else told_by.get(width)
                if family is not None:
                    return ModelKind("lora", family)
    return ModelKind("lora")


def _lora_input_widths(shapes: Shapes) -> dict[str, int]:
    """For each module that a LoRA changes, the width of what the module takes; 0 where its parts do not tell."""
    widths: dict[str, int] = {}
    for name, shape in shapes.items():
        found = LORA_NAME.fullmatch(name)
        if found is None:
            continue
        module = LORA_PREFIX.sub("", found["module"], count=1).replace(".", "_").replace("_processor_", "_")
        width = widths.setdefault(module, 0)
        if len(shape) > 1 and LORA_INPUT_SIDE.match(found["part"]):
            # LoKr: the Kronecker product of two matrices is as wide as their widths multiplied.
            widths[module] = shape[1] * (width or 1) if "lokr" in found["part"] else shape[1]
    return widths


TEXT_ENCODERS = {
    "text_model.encoder.layers.0.mlp.fc1.weight",
    "transformer.resblocks.0.ln_1.weight",
    "encoder.block.0.layer.0.SelfAttention.k.weight",
    "model.layers.0.self_attn.k_proj.weight",
}
VAES = {
    "decoder.conv_in.weight",
    "decoder.conv_in.conv.weight",
    "decoder.middle.0.residual.0.gamma",
    "taesd_decoder.1.weight",
}


def _text_encoder_or_vae(shapes: Shapes) -> ModelKind | None:
    if shapes.keys() & TEXT_ENCODERS:
        return ModelKind("text_encoder")
    return ModelKind("vae") if shapes.keys() & VAES else None


def _dim(shapes: Shapes, axis: int, *names: str) -> int:
    """The size along an axis of the first of these tensors that is there; 0 where none is, or has no such axis."""
    return next((shapes[name][axis] for name in names if len(shapes.get(name, ())) > axis), 0)
