"""Detects a model's type and family from the header of its file, without loading it.

A family shows in the names of a few tensors and in one width. The rules follow what ComfyUI's own
loaders look at (``comfy/model_detection.py``, ``lora.py``, ``controlnet.py``). Where the names
leave a doubt, the family is unknown and never guessed: callers then warn and refuse nothing. Only
safetensors and GGUF files have a header. Pickled files are never read, since reading them can run
code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from comfy_worker.models.architectures import (
    BASE_MODELS,
    MODEL_PATCHES,
    SD3_WIDTH,
    TEXT_ENCODERS,
    UNET_CONTEXT,
    UNET_TENSORS,
    UNET_VECTOR,
    VAES,
    BaseModelRule,
)
from comfy_worker.models.families import (
    FAMILIES,
    FLUX,
    HUNYUAN_DIT,
    QWEN_IMAGE,
    SD15,
    SDXL,
    SVD,
    Family,
)
from comfy_worker.models.lora_families import lora_family, lora_modules
from comfy_worker.models.precision import GGUF, is_packed, precision
from comfy_worker.models.safetensors import GGUF_SUFFIX, SUFFIXES, read_header

__all__ = ["FAMILIES", "Family", "ModelInfo", "compatible", "family_of_header", "identify"]

Header = Mapping[str, Mapping[str, Any]]
ModelType = Literal[
    "checkpoint",
    "diffusion_model",
    "lora",
    "controlnet",
    "model_patch",
    "text_encoder",
    "vae",
    "unknown",
]
Shapes = Mapping[str, tuple[int, ...]]
Rules = Sequence[tuple[set[str], BaseModelRule]]


@dataclass(frozen=True)
class ModelInfo:
    """What a model file is.

    Args:
        model_type: what it is used for. A checkpoint is a diffusion model together with its text
            encoder or VAE.
        family: the family that it belongs to, or that an add-on is made for; None if unknown.
        inpaint: it takes a mask beside the image.
        union: a ControlNet for several control types, which needs the type as an input.
        precision: how its numbers are stored, see :mod:`comfy_worker.models.precision`; empty if
            unknown. Two files that differ only in this are the same model.
    """

    model_type: ModelType
    family: Family | None = None
    inpaint: bool = False
    union: bool = False
    precision: str = field(default="", compare=False)


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
        path: a file in one of ComfyUI's model folders. Anything but ``.safetensors``, ``.sft`` and
            ``.gguf`` is unknown.

    Raises:
        InvalidValue: the file is not a complete safetensors or GGUF file, or may not be read.
        OSError: the file is missing.
    """
    if path.suffix.lower() not in {*SUFFIXES, GGUF_SUFFIX}:
        return ModelInfo("unknown")
    state = path.stat()
    return _identify(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _identify(path: Path, _size: int, _mtime_ns: int) -> ModelInfo:
    header = read_header(path)
    info = family_of_header(header)
    if path.suffix.lower() == GGUF_SUFFIX:
        return replace(info, precision=GGUF)
    return replace(info, precision=precision(header, path))


def family_of_header(header: Header) -> ModelInfo:
    """Find out what a model file is by its tensors.

    Args:
        header: for each tensor's name its ``shape``, and perhaps its ``dtype``, as in a safetensors
            header.

    Returns:
        The type, ``unknown`` if no rule matches, and the family if it is certain.
    """
    shapes = _unpacked_shapes(header)
    for rule in (_model_patch, _controlnet, _lora, _base_model, _text_encoder_or_vae):
        found = rule(shapes)
        if found is not None:
            return found
    return ModelInfo("unknown")


def _unpacked_shapes(header: Header) -> Shapes:
    """Return the shapes that the tensors have when they are loaded."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in header.items():
        shape = tuple(tensor["shape"])
        if len(shape) == 2 and is_packed(name, header):
            shape = (shape[0], 2 * shape[1])
        shapes[name] = shape
    return shapes


MODEL_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.", "net.", "model.")
BESIDE_A_MODEL = (
    "first_stage_model.",
    "vae.",
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
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
        rule = _matching_rule(BASE_MODELS, model)
        if rule is None:
            return None
        family = _family(rule, model)
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


def _matching_rule(rules: Rules, model: Shapes) -> BaseModelRule | None:
    for markers, rule in rules:
        if markers <= model.keys():
            return rule
    return None


def _family(rule: BaseModelRule, shapes: Shapes) -> Family | None:
    if isinstance(rule, Family):
        return rule
    tensor, families = rule
    return families.get(_dim(shapes, 0, tensor))


def _model_patch(shapes: Shapes) -> ModelInfo | None:
    rule = _matching_rule(MODEL_PATCHES, shapes)
    return None if rule is None else ModelInfo("model_patch", _family(rule, shapes))


def _lora(shapes: Shapes) -> ModelInfo | None:
    modules = lora_modules(shapes)
    return ModelInfo("lora", lora_family(modules)) if modules else None


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
# The union ControlNet of alibaba-pai for Qwen-Image.
QWEN_FUN_CONTROLNET = {"control_blocks.0.after_proj.weight", "control_img_in.weight"}
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
    elif names >= QWEN_FUN_CONTROLNET:
        return ModelInfo("controlnet", QWEN_IMAGE)
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
