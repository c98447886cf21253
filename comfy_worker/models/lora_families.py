"""Detects for which family a LoRA is made, by the names and widths of the modules that it changes.

The names follow ``comfy/lora.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from comfy_worker.models.architectures import (
    FLUX2_WIDTH,
    HUNYUAN_WIDTH,
    LUMINA_WIDTH,
    SD3_WIDTH,
    UNET_CONTEXT,
    WAN_WIDTH,
)
from comfy_worker.models.families import (
    ACE_STEP,
    ACE_STEP_15,
    ACE_STEP_15_XL,
    ANIMA,
    AURAFLOW,
    CHROMA,
    FLUX,
    FLUX2,
    HIDREAM,
    HUNYUAN_VIDEO_15,
    KLEIN_4B,
    KLEIN_9B,
    KREA2,
    LTX2,
    LTXV,
    MINIMAX_H3,
    PIXART,
    QWEN_IMAGE,
    QWEN_IMAGE_21,
    SD2,
    SD15,
    SDXL,
    Family,
)

__all__ = ["lora_family", "lora_modules"]

# No LoRA changes more modules than this; of a longer list the first ones decide.
MAX_MODULES = 20_000
Shapes = Mapping[str, tuple[int, ...]]
# Families by a module's input width (an int), or by its input and output widths (two ints).
Widths = Mapping[Any, Family]

# What a LoRA appends to the name of the module that it changes: LoRA, LoHa, LoKr, OFT, a full
# difference.
LORA_NAME = re.compile(
    r"(?P<module>.+?)[._](?P<part>lora[12]?[._](?:down|up|A|B)(?:\.\w+)?\.weight|"
    r"lora_linear_layer\.(?:down|up)\.weight|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|"
    r"oft_(?:blocks|diag)|diff)"
)
LORA_INPUT_SIDE = re.compile(r".*[._](?:down|A)\b|hada_w1_b|lokr_w[12](?:_b)?$|diff")
LORA_OUTPUT_SIDE = re.compile(r".*[._](?:up|B)\b|hada_w1_a|lokr_w[12](?:_a)?$|diff")
LORA_PREFIX = re.compile(
    r"(?:(?:lora_unet|lora_transformer|lycoris)_+|"
    r"(?:base_model|model|diffusion_model|transformer|unet|net)\.)+"
)
UNET_BLOCK = r"(?:(?:down|up|input|output)_blocks|mid_block|middle_block)_"

# Patterns of module names ("_" stands for "."), each with the family, or with the families by the
# module's widths. The first pattern that matches a module decides. Flux, HunyuanVideo and Flux 2
# Klein 4B name their modules alike and have one width. They differ only in how many blocks they
# have, in their modulation layers, and in the widths of their MLPs: Flux 2 has three times the
# model's width, and a gate beside it.
LORA_PATTERNS: tuple[tuple[str, Family | Widths], ...] = (
    (r"double_stream_blocks_\d", HIDREAM),
    (r"joint_transformer_blocks_\d|(?:double|single)_layers_\d", AURAFLOW),
    (r"distilled_guidance_layer_", CHROMA),
    (
        r"double_blocks_(?:\d+_(?:img|txt)_(?:mlp_fc1|mod_linear)|19_)|"
        r"single_(?:transformer_)?blocks_3[89]_",
        HUNYUAN_WIDTH,
    ),
    (
        r"double_blocks_(?:[89]|1\d|\d_(?:img|txt)_mod_lin)|"
        r"single_blocks_(?:2[4-9]|3\d|\d+_modulation_lin)|"
        r"single_transformer_blocks_(?:2[4-9]|3\d)_",
        {3072: FLUX},
    ),
    (r"single_blocks_\d+_linear1$", {(3072, 21504): FLUX, (3072, 27648): KLEIN_4B}),
    (r"single_blocks_\d+_linear2$", {15360: FLUX, 12288: KLEIN_4B}),
    (r"single_transformer_blocks_\d+_proj_out$", {15360: FLUX}),
    (r"single_transformer_blocks_\d+_attn_to_qkv_mlp_proj$", FLUX2_WIDTH),
    (r"single_transformer_blocks_\d+_attn_to_out$", {12288: KLEIN_4B}),
    (r"double_blocks_\d+_(?:img|txt)_mlp_0$", {(3072, 18432): KLEIN_4B}),
    (r"double_blocks_\d+_(?:img|txt)_mlp_2$", {(9216, 3072): KLEIN_4B}),
    (r"(?:double|single)_stream_modulation(?:_img|_txt)?_lin", FLUX2_WIDTH),
    (r"transformer_blocks_\d+_ff(?:_context)?_linear_in$", FLUX2_WIDTH),
    (
        r"(?:double|single)_blocks_\d|single_transformer_blocks_\d",
        {6144: FLUX2, 4096: KLEIN_9B, 2048: HUNYUAN_VIDEO_15},
    ),
    (
        r"transformer_blocks_\d+_attn_add_[qkv]_proj$",
        {6144: FLUX2, 4096: KLEIN_9B, **SD3_WIDTH},
    ),
    (r"txtfusion_|text_fusion_|transformer_blocks_\d+_(?:attn_to_gate|ff_gate|ff_up)$", KREA2),
    (r"blocks_\d+_attn_w[qkvo]$|blocks_\d+_mlp_(?:gate|up)$", {6144: KREA2}),
    # Keys and values are narrower than queries in Krea 2, and not in Flux 2.
    (r"transformer_blocks_\d+_attn_to_[kv]$", {(6144, 1536): KREA2, (6144, 6144): FLUX2}),
    (
        r"(?:token_refiner_)?blocks_\d+_(?:attn_qkv_proj|mlp_fc1)$",
        {5376: MINIMAX_H3},
    ),
    (r"transformer_blocks_\d+_(?:audio_|audio_to_video_|video_to_audio_)", LTX2),
    (r"transformer_blocks_\d+_attn[12]_to_gate_logits$", LTX2),
    (r"transformer_blocks_\d+_(?:cross_attn|attn)_to_[qkv]$", {2560: ACE_STEP}),
    (
        r"(?:decoder_)?layers_\d+_cross_attn_[qo]_proj$",
        {2048: ACE_STEP_15, 2560: ACE_STEP_15_XL},
    ),
    (r"llm_adapter_", ANIMA),
    (
        r"blocks_\d+_(?:(?:self|cross)_attn_q_proj|self_attn_[kv]_proj|mlp_layer1)$",
        {2048: ANIMA},
    ),
    (
        r"transformer_blocks_\d+_img_mlp_(?:gate_up|gate_layer|proj)$",
        {4096: QWEN_IMAGE_21},
    ),
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
LORA_RULES = tuple((re.compile(pattern), rule) for pattern, rule in LORA_PATTERNS)


def lora_family(modules: Mapping[str, tuple[int, int]]) -> Family | None:
    """Find the family of a LoRA; None if the names of its modules leave a doubt.

    Args:
        modules: as :func:`lora_modules` returns them.
    """
    first_modules = list(islice(modules.items(), MAX_MODULES))
    for pattern, rule in LORA_RULES:
        for module, (width_in, width_out) in first_modules:
            if not pattern.match(module):
                continue
            family = _family(rule, width_in, width_out)
            if family is not None:
                return family
    return None


def _family(rule: Family | Widths, width_in: int, width_out: int) -> Family | None:
    if isinstance(rule, Family):
        return rule
    return rule.get((width_in, width_out)) or rule.get(width_in)


def lora_modules(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Find the modules that a LoRA changes.

    Args:
        shapes: by the tensors' names.

    Returns:
        By each module's name, with "_" for ".", its input and output width; 0 where it is not
        known. Empty if the file is not a LoRA.
    """
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    for name, shape in shapes.items():
        found = LORA_NAME.fullmatch(name)
        if found is None:
            continue
        module = LORA_PREFIX.sub("", found["module"], count=1)
        module = module.replace(".", "_").replace("_processor_", "_")
        part = found["part"]
        width_in, width_out = inputs.setdefault(module, 0), outputs.setdefault(module, 0)
        if len(shape) < 2:
            continue
        # LoKr: the width of a Kronecker product is the product of both widths.
        is_product = "lokr" in part
        if LORA_INPUT_SIDE.match(part):
            inputs[module] = shape[1] * (width_in or 1) if is_product else shape[1]
        if LORA_OUTPUT_SIDE.match(part):
            outputs[module] = shape[0] * (width_out or 1) if is_product else shape[0]
    return {module: (inputs[module], outputs[module]) for module in inputs}
