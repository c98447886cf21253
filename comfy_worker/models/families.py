"""Declares the model families that the worker knows.

:mod:`comfy_worker.models.detect` finds the family of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Models of one architecture. They share their LoRAs and ControlNets.

    Args:
        name: a short name, such as ``sd15``.
        title: the name that people read.
        width: native width, in pixels.
        height: native height, in pixels.
        controlnet_vae: its ControlNets work on latents, so the node that applies them needs the VAE.
        compatibility_group: families of one group take each other's LoRAs and ControlNets.
    """

    name: str
    title: str
    width: int
    height: int
    controlnet_vae: bool = False
    compatibility_group: str = ""


SD15 = Family("sd15", "SD 1.5", 512, 512)
SD2 = Family("sd2", "SD 2", 768, 768)
SDXL = Family("sdxl", "SDXL", 1024, 1024)
SDXL_REFINER = Family("sdxl-refiner", "SDXL refiner", 1024, 1024)
SVD = Family("svd", "Stable Video Diffusion", 1024, 576)
# SD 3 medium and SD 3.5 medium have one width, so their LoRAs look alike. ComfyUI loads either.
SD3_MEDIUM = Family("sd3-medium", "SD 3 / 3.5 medium", 1024, 1024, controlnet_vae=True)
SD35_LARGE = Family("sd35-large", "SD 3.5 large", 1024, 1024, controlnet_vae=True)
FLUX = Family("flux", "Flux", 1024, 1024, controlnet_vae=True, compatibility_group="flux")
CHROMA = Family("chroma", "Chroma", 1024, 1024, controlnet_vae=True, compatibility_group="flux")
FLUX2 = Family("flux2", "Flux 2", 1024, 1024, controlnet_vae=True)
QWEN_IMAGE = Family("qwen-image", "Qwen-Image", 1328, 1328, controlnet_vae=True)
LUMINA2 = Family("lumina2", "Lumina 2", 1024, 1024)
Z_IMAGE = Family("z-image", "Z-Image", 1024, 1024)
# Wan 2.1 and Wan 2.2 with 14 B parameters have the same layers and take each other's LoRAs.
WAN_14B = Family("wan-14b", "Wan 2.1 / 2.2 14B", 832, 480)
WAN21_1B = Family("wan21-1.3b", "Wan 2.1 1.3B", 832, 480)
WAN22_5B = Family("wan22-5b", "Wan 2.2 5B", 1280, 704)
HUNYUAN_VIDEO = Family("hunyuan-video", "HunyuanVideo", 848, 480)
HUNYUAN_VIDEO_15 = Family("hunyuan-video-1.5", "HunyuanVideo 1.5", 848, 480)
HUNYUAN_IMAGE = Family("hunyuan-image", "HunyuanImage 2.1", 2048, 2048)
HUNYUAN_DIT = Family("hunyuan-dit", "Hunyuan-DiT", 1024, 1024, controlnet_vae=True)
LTXV = Family("ltxv", "LTX-Video", 768, 512)
HIDREAM = Family("hidream", "HiDream", 1024, 1024)
AURAFLOW = Family("auraflow", "AuraFlow", 1024, 1024)
PIXART = Family("pixart", "PixArt", 1024, 1024)
MOCHI = Family("mochi", "Mochi", 848, 480)
COSMOS2 = Family("cosmos-predict2", "Cosmos Predict2", 1024, 1024)
OMNIGEN2 = Family("omnigen2", "OmniGen2", 1024, 1024)

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in globals().values() if isinstance(family, Family)
}
