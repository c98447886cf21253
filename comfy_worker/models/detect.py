"""Detects a model's type and family from the header of its safetensors file, without loading it.

A family shows in the names of a few tensors and in one width. The rules follow what ComfyUI's own
loaders look at (``comfy/model_detection.py``, ``lora.py``, ``controlnet.py``). Where the names leave
a doubt, the family is unknown and never guessed: callers then warn and refuse nothing. Pickled files
are never read, since reading them can run code.
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

__all__ = ["FAMILIES", "Family", "ModelInfo", "compatible", "family_of_header", "identify"]

Header = Mapping[str, Mapping[str, Any]]
ModelType = Literal[
    "checkpoint",
    "diffusion_model",
    "lora",
    "controlnet",
    "text_encoder",
    "vae",
    "unknown",
]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ModelInfo:
    """What a model file is.

    Args:
        model_type: what it is used for. A checkpoint is a diffusion model together with its text
            encoder or VAE.
        family: the family that it belongs to, or that an add-on is made for; None if unknown.
        inpaint: it takes a mask beside the image.
        union: a ControlNet for several control types, which needs the type as an input.
    """

    model_type: ModelType
    family: Family | None = None
    inpaint: bool = False
    union: bool = False


def compatible(base: Family | None, addon: Family | None) -> bool | None:
    """Whether a LoRA or ControlNet fits a base model.

    Args:
        base: the family of the checkpoint or diffusion model.
        addon: the family of the LoRA or ControlNet.

    Returns:
        None if one of the two is unknown: warn, do not refuse.
    """
    if base is None or addon is None:
        return None
    if base == addon:
        return True
    return bool(base.compatibility_group) and base.compatibility_group == addon.compatibility_group


def identify(path: Path) -> ModelInfo:
    """Find out what a model file is. Cached until the file's size or time changes.

    Args:
        path: a file in one of ComfyUI's model folders. Anything but ``.safetensors`` and ``.sft`` is
            unknown.

    Raises:
        InvalidValue: the file is not a complete safetensors file, or may not be read.
        OSError: the file is missing.
    """
    if path.suffix.lower() not in {".safetensors", ".sft"}:
        return ModelInfo("unknown")
    state = path.stat()
    return _identify(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _identify(path: Path, _size: int, _mtime_ns: int) -> ModelInfo:
    return family_of_header(read_header(path))


def family_of_header(header: Header) -> ModelInfo:
    """Find out what a model file is by its tensors.

    Args:
        header: for each tensor's name at least its ``shape``, as in a safetensors header.

    Returns:
        The type, ``unknown`` if no rule matches, and the family if it is certain.
    """
    shapes = {name: tuple(tensor["shape"]) for name, tensor in header.items()}
    for rule in (_controlnet, _lora, _base_model, _text_encoder_or_vae):
        found = rule(shapes)
        if found is not None:
            return found
    return ModelInfo("unknown")


# Families of one architecture differ in one width: the width of the text embedding that a UNet
# attends to, or of the model itself.
UNET_CONTEXT = {768: SD15, 1024: SD2, 1280: SDXL_REFINER, 2048: SDXL}
UNET_VECTOR = {2560: SDXL_REFINER, 2816: SDXL}
SD3_WIDTH = {1536: SD3_MEDIUM, 2432: SD35_LARGE}
HUNYUAN_WIDTH = {2048: HUNYUAN_VIDEO_15, 3072: HUNYUAN_VIDEO, 3584: HUNYUAN_IMAGE}
LUMINA_WIDTH = {2304: LUMINA2, 3840: Z_IMAGE}
WAN_WIDTH = {1536: WAN21_1B, 3072: WAN22_5B, 5120: WAN_14B}

MODEL_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.", "net.", "model.")
BESIDE_A_MODEL = (
    "first_stage_model.",
    "vae.",
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
)

UNET_TENSORS = {"input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight"}

# A family, or a tensor and the families by its first dimension.
BaseModelRule = Family | tuple[str, Mapping[int, Family]]

# Each architecture by the tensors that only it has.
BASE_MODELS: tuple[tuple[set[str], BaseModelRule], ...] = (
    ({"joint_blocks.0.context_block.attn.qkv.weight"}, ("x_embedder.proj.weight", SD3_WIDTH)),
    (
        {"transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"},
        ("pos_embed.proj.weight", SD3_WIDTH),
    ),
    ({"double_layers.0.attn.w1q.weight"}, AURAFLOW),
    ({"mlp_t5.0.weight"}, HUNYUAN_DIT),
    (
        {"txt_in.individual_token_refiner.blocks.0.norm1.weight"},
        ("img_in.proj.weight", HUNYUAN_WIDTH),
    ),
    # ComfyUI names the norms of Flux and Chroma ".weight" from 0.33 on; older files have ".scale".
    ({"distilled_guidance_layer.norms.0.scale"}, CHROMA),
    ({"distilled_guidance_layer.norms.0.weight"}, CHROMA),
    ({"distilled_guidance_layer.0.norms.0.scale"}, CHROMA),
    ({"double_stream_modulation_img.lin.weight"}, ("img_in.weight", {6144: FLUX2})),
    (
        {"double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"},
        ("img_in.weight", {3072: FLUX}),
    ),
    (
        {"double_blocks.0.img_attn.norm.key_norm.weight", "img_in.weight"},
        ("img_in.weight", {3072: FLUX}),
    ),
    (
        {"single_transformer_blocks.0.attn.to_q.weight", "x_embedder.weight"},
        ("x_embedder.weight", {3072: FLUX}),
    ),
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


def _base_model(shapes: Shapes) -> ModelInfo | None:
    prefix = _model_prefix(shapes)
    model = {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }
    family: Family | None
    if model.keys() & UNET_TENSORS:
        family = _unet_family(model)
    else:
        rule = _matching_rule(model)
        if rule is None:
            return None
        family = rule if isinstance(rule, Family) else rule[1].get(_dim(model, 0, rule[0]))
    has_companion = any(name.startswith(BESIDE_A_MODEL) for name in shapes)
    return ModelInfo(
        "checkpoint" if has_companion else "diffusion_model",
        family,
        inpaint=_takes_mask(model, family),
    )


def _model_prefix(shapes: Shapes) -> str:
    """Return the prefix of the diffusion model's tensor names in this file."""
    for prefix in MODEL_PREFIXES:
        if any(name.startswith(prefix) for name in shapes):
            return prefix
    return ""


def _matching_rule(model: Shapes) -> BaseModelRule | None:
    for markers, rule in BASE_MODELS:
        if markers <= model.keys():
            return rule
    return None


def _takes_mask(model: Shapes, family: Family | None) -> bool:
    """Whether a mask and a masked image enter the model beside the latent."""
    # 4 channels of the latent + 1 of the mask + 4 of the masked image.
    if _dim(model, 1, "input_blocks.0.0.weight", "conv_in.weight") == 9:
        return True
    # Flux Fill: 96 channels in patches of 2x2.
    return family == FLUX and _dim(model, 1, "img_in.weight", "x_embedder.weight") == 384


def _unet_family(shapes: Shapes) -> Family | None:
    if any("time_stack" in name or "temporal_transformer_blocks" in name for name in shapes):
        return SVD
    for name in shapes:
        if name.endswith(("attn2.to_k.weight", "attn2.to_k.down")):
            return UNET_CONTEXT.get(_dim(shapes, 1, name))
    # The small SDXL ControlNets have no attention.
    names = (
        "label_emb.0.0.weight",
        "control_model.label_emb.0.0.weight",
        "add_embedding.linear_1.weight",
    )
    return UNET_VECTOR.get(_dim(shapes, 1, *names))


# The networks whose encoder is a copy of a UNet's.
UNET_CONTROLNETS = {
    "lora_controlnet",
    "zero_convs.0.0.weight",
    "control_model.zero_convs.0.0.weight",
    "controlnet_cond_embedding.conv_in.weight",
}
TRANSFORMER_CONTROLNETS = {"controlnet_blocks.0.weight", "controlnet_blocks.0.linear.weight"}
T2I_ADAPTERS = {
    "adapter.body.0.resnets.0.block1.weight",
    "body.0.block1.weight",
    "body.0.in_conv.weight",
}
UNION_CONTROLNETS = {"task_embedding", "controlnet_mode_embedder.weight"}


def _controlnet(shapes: Shapes) -> ModelInfo | None:
    names = shapes.keys()
    family: Family | None
    if names & UNET_CONTROLNETS:
        family = _unet_family(shapes)
    elif names & TRANSFORMER_CONTROLNETS:
        family = _transformer_controlnet_family(shapes)
    elif "after_proj_list.18.bias" in names:
        family = HUNYUAN_DIT
    elif names & T2I_ADAPTERS:
        # A T2I-Adapter takes the image in blocks of 16x16 pixels for SDXL, of 8x8 for SD 1.5.
        channels = _dim(shapes, 1, "adapter.conv_in.weight", "conv_in.weight")
        family = SDXL if channels in {256, 768} else SD15
    else:
        return None
    # A mask enters beside 16 latent channels: 17 for SD 3, and 68 in patches of 2x2 for others.
    channels = _dim(shapes, 1, "pos_embed_input.proj.weight", "controlnet_x_embedder.weight")
    is_union = bool(names & UNION_CONTROLNETS)
    return ModelInfo("controlnet", family, inpaint=channels in {17, 68}, union=is_union)


def _transformer_controlnet_family(shapes: Shapes) -> Family | None:
    if "pos_embed_input.proj.weight" in shapes:
        return SD3_WIDTH.get(_dim(shapes, 0, "pos_embed_input.proj.weight"))
    if "transformer_blocks.0.img_mlp.net.0.proj.weight" in shapes:
        return QWEN_IMAGE
    return {3072: FLUX}.get(_dim(shapes, 0, "controlnet_x_embedder.weight", "img_in.weight"))


# What a LoRA appends to the name of the module that it changes: LoRA, LoHa, LoKr, OFT, a full
# difference.
LORA_NAME = re.compile(
    r"(?P<module>.+?)[._](?P<part>lora[12]?[._](?:down|up|A|B)(?:\.\w+)?\.weight|"
    r"lora_linear_layer\.(?:down|up)\.weight|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|oft_(?:blocks|diag)|diff)"
)
LORA_INPUT_SIDE = re.compile(r".*[._](?:down|A)\b|hada_w1_b|lokr_w[12](?:_b)?$|diff")
LORA_PREFIX = re.compile(
    r"(?:(?:lora_unet|lora_transformer|lycoris)_+|(?:base_model|model|diffusion_model|transformer|unet)\.)+"
)
UNET_BLOCK = r"(?:(?:down|up|input|output)_blocks|mid_block|middle_block)_"

# Patterns of module names ("_" stands for "."), each with the family, or with the families by the
# module's input width. The first pattern that matches a module decides. Flux, HunyuanVideo and the
# small Flux 2 name their modules alike and have one width. They differ only in how many blocks they
# have, and in their modulation layers.
LORA_RULES: tuple[tuple[re.Pattern[str], Family | Mapping[int, Family]], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
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
        (
            r"blocks_\d+_(?:(?:self|cross)_attn_[qkvo]|attn[12]_to_[qkv]|ffn_0|ffn_net_0_proj)$",
            WAN_WIDTH,
        ),
        (r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|feed_forward)_", LUMINA_WIDTH),
        (UNET_BLOCK + r".*attn2_to_[kv]$", UNET_CONTEXT),
        (UNET_BLOCK + r".*transformer_blocks_[2-9]_", SDXL),
        (r"lora_te_text_model_.*self_attn_[qkv]_proj$", {768: SD15, 1024: SD2}),
    )
)


def _lora(shapes: Shapes) -> ModelInfo | None:
    widths = _lora_input_widths(shapes)
    if not widths:
        return None
    for pattern, rule in LORA_RULES:
        for module, width in widths.items():
            if not pattern.match(module):
                continue
            family = rule if isinstance(rule, Family) else rule.get(width)
            if family is not None:
                return ModelInfo("lora", family)
    return ModelInfo("lora")


def _lora_input_widths(shapes: Shapes) -> dict[str, int]:
    """Return the input width of each module that a LoRA changes; 0 if it is not known."""
    widths: dict[str, int] = {}
    for name, shape in shapes.items():
        found = LORA_NAME.fullmatch(name)
        if found is None:
            continue
        module = LORA_PREFIX.sub("", found["module"], count=1)
        module = module.replace(".", "_").replace("_processor_", "_")
        width = widths.setdefault(module, 0)
        if len(shape) > 1 and LORA_INPUT_SIDE.match(found["part"]):
            # LoKr: the width of a Kronecker product is the product of both widths.
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


def _text_encoder_or_vae(shapes: Shapes) -> ModelInfo | None:
    if shapes.keys() & TEXT_ENCODERS:
        return ModelInfo("text_encoder")
    if shapes.keys() & VAES:
        return ModelInfo("vae")
    return None


def _dim(shapes: Shapes, axis: int, *names: str) -> int:
    """Return the size of an axis of the first of these tensors that has the axis.

    Returns 0 if none of them exists and has it.
    """
    for name in names:
        shape = shapes.get(name, ())
        if len(shape) > axis:
            return shape[axis]
    return 0
