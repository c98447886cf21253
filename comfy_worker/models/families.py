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
        controlnet_vae: its ControlNets work on latents, so the node that applies them needs the
            VAE.
        cfg: the only guidance that its pictures bear, for a template that was made for another
            family; 0 if they bear any.
        picture_scheduler: the scheduler for such a template if its `denoise` is below 1; empty if
            any will do.
        compatibility_group: families of one group take each other's LoRAs and ControlNets.
    """

    name: str
    title: str
    width: int
    height: int
    controlnet_vae: bool = False
    compatibility_group: str = ""
    cfg: float = 0
    picture_scheduler: str = ""


SD15 = Family("sd15", "SD 1.5", 512, 512)
SD2 = Family("sd2", "SD 2", 768, 768)
SDXL = Family("sdxl", "SDXL", 1024, 1024)
SDXL_REFINER = Family("sdxl-refiner", "SDXL refiner", 1024, 1024)
SVD = Family("svd", "Stable Video Diffusion", 1024, 576)
# SD 3 medium and SD 3.5 medium have one width, so their LoRAs look alike. ComfyUI loads either.
SD3_MEDIUM = Family("sd3-medium", "SD 3 / 3.5 medium", 1024, 1024, controlnet_vae=True)
SD35_LARGE = Family("sd35-large", "SD 3.5 large", 1024, 1024, controlnet_vae=True)
# This project's toy model draws coloured shapes. It has the layers of SD 3, but few and narrow.
TOY = Family(
    "toy", "the toy model", 256, 256, controlnet_vae=True, cfg=1, picture_scheduler="simple"
)
FLUX = Family("flux", "Flux", 1024, 1024, controlnet_vae=True, compatibility_group="flux")
CHROMA = Family("chroma", "Chroma", 1024, 1024, controlnet_vae=True, compatibility_group="flux")
FLUX2 = Family("flux2", "Flux 2", 1024, 1024, controlnet_vae=True)
# The base and the distilled model of one size have the same layers.
KLEIN_4B = Family("flux2-klein-4b", "Flux 2 Klein 4B", 1024, 1024, controlnet_vae=True)
KLEIN_9B = Family("flux2-klein-9b", "Flux 2 Klein 9B", 1024, 1024, controlnet_vae=True)
# Qwen-Image and its editing models have the same layers and take each other's LoRAs.
QWEN_IMAGE = Family(
    "qwen-image",
    "Qwen-Image",
    1328,
    1328,
    controlnet_vae=True,
    compatibility_group="qwen-image",
)
QWEN_IMAGE_EDIT = Family(
    "qwen-image-edit",
    "Qwen-Image-Edit",
    1328,
    1328,
    controlnet_vae=True,
    compatibility_group="qwen-image",
)
QWEN_IMAGE_LAYERED = Family(
    "qwen-image-layered",
    "Qwen-Image-Layered",
    640,
    640,
    controlnet_vae=True,
    compatibility_group="qwen-image",
)
# Its layers and its VAE differ from those of Qwen-Image.
QWEN_IMAGE_21 = Family("qwen-image-2.1", "Qwen-Image 2.1", 1024, 1024)
KREA2 = Family("krea2", "Krea 2", 1024, 1024)
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
LTXV_13B = Family("ltxv-13b", "LTX-Video 13B", 768, 512)
# LTX-2, 2.3 and 2.5, which make sound too. Their LoRAs have the same shapes.
LTX2 = Family("ltx-2", "LTX-2", 1280, 720)
MINIMAX_H3 = Family("minimax-h3", "MiniMax H3", 1280, 720)
SEEDVR2_3B = Family("seedvr2-3b", "SeedVR2 3B", 1280, 720)
SEEDVR2_7B = Family("seedvr2-7b", "SeedVR2 7B", 1280, 720)
HIDREAM = Family("hidream", "HiDream", 1024, 1024)
AURAFLOW = Family("auraflow", "AuraFlow", 1024, 1024)
PIXART = Family("pixart", "PixArt", 1024, 1024)
MOCHI = Family("mochi", "Mochi", 848, 480)
# Anima has the layers of Cosmos Predict2 2B, so their LoRAs look alike and load in both.
COSMOS2 = Family(
    "cosmos-predict2", "Cosmos Predict2 2B", 1024, 1024, compatibility_group="cosmos-2b"
)
COSMOS2_14B = Family("cosmos-predict2-14b", "Cosmos Predict2 14B", 1024, 1024)
ANIMA = Family("anima", "Anima", 1024, 1024, compatibility_group="cosmos-2b")
KANDINSKY5 = Family("kandinsky5", "Kandinsky 5", 1024, 1024)
# Sound has no size in pixels.
ACE_STEP = Family("ace-step", "ACE-Step", 0, 0)
ACE_STEP_15 = Family("ace-step-1.5", "ACE-Step 1.5", 0, 0)
ACE_STEP_15_XL = Family("ace-step-1.5-xl", "ACE-Step 1.5 XL", 0, 0)
MINIMAX_MUSIC_3 = Family("minimax-music-3", "MiniMax Music 3", 0, 0)
OMNIGEN2 = Family("omnigen2", "OmniGen2", 1024, 1024)

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in globals().values() if isinstance(family, Family)
}
