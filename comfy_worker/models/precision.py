"""Tells how a model file stores its numbers: in full, or quantised in one of ComfyUI's formats.

ComfyUI writes what it needs to know about a quantised layer into tensors beside its weight:
``weight_scale`` (older files: ``scale_weight``), ``weight_scale_2``, and ``comfy_quant``, which is
JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_common.safetensors_header import read_tensor

__all__ = ["GGUF", "is_packed", "precision"]

Header = Mapping[str, Mapping[str, Any]]

GGUF = "gguf"
FP8 = ("F8_E4M3", "F8_E5M2")
SCALES = (".weight_scale", ".scale_weight")
QUANT = ".comfy_quant"
QUANT_BYTES = 10_000
FULL = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
# ComfyUI's names of formats, as people call them.
FORMATS = {
    "float8_e4m3fn": "fp8_scaled",
    "float8_e5m2": "fp8_scaled",
    "int8_tensorwise": "int8",
    "convrot_w4a4": "int4_convrot",
    "asym_w4a8_int8": "int4",
}


def is_packed(name: str, header: Header) -> bool:
    """Whether two numbers of this tensor share a byte, along its last axis, as in nvfp4."""
    if header[name].get("dtype") != "U8" or not name.endswith(".weight"):
        return False
    return f"{name}_scale_2" in header


def precision(header: Header, path: Path | None = None) -> str:
    """Name how most bytes of a file are stored.

    Args:
        header: of a safetensors file.
        path: the file, which says more than its header about int8; may be left out.

    Returns:
        bf16, fp16, fp32, fp8, fp8_scaled, int8, int8_convrot, int4, int4_convrot, nvfp4 or mxfp8;
        empty if the dtype is none of these.
    """
    if any(is_packed(name, header) for name in header):
        return "nvfp4"
    layer_format = _comfy_format(header, path)
    if layer_format:
        return layer_format
    sizes: Counter[str] = Counter()
    for tensor in header.values():
        begin, end = tensor["data_offsets"]
        sizes[str(tensor.get("dtype"))] += end - begin
    most = sizes.most_common(1)[0][0] if sizes else ""
    has_scales = any(name.endswith(SCALES) or name.endswith("scaled_fp8") for name in header)
    if most in FP8:
        return "fp8_scaled" if has_scales else "fp8"
    if most == "I8":
        return "int8"
    return FULL.get(most, "")


def _comfy_format(header: Header, path: Path | None) -> str:
    """Read the format from the first layer that states it; empty if none does."""
    described = next((name for name in header if name.endswith(QUANT)), None)
    if described is None or path is None:
        return ""
    try:
        stated = json.loads(read_tensor(path, dict(header[described]), QUANT_BYTES))
        layer_format = str(stated["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if layer_format == "int8_tensorwise" and stated.get("convrot"):
        return "int8_convrot"
    return FORMATS.get(layer_format, layer_format)
