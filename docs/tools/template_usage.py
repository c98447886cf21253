"""Computes which share of the use of ComfyUI's own templates falls on families that have one here.

``official_usage.json`` records ComfyUI's index of its templates: family and usage of each.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OFFICIAL", "FamilyUse", "covered_percent", "family_uses", "official_templates"]

USAGE_FILE = Path(__file__).with_name("official_usage.json")
# By template, an official one of the same family; None if ComfyUI's list has none.
OFFICIAL: dict[str, str | None] = {
    "txt2img": None,
    "img2img": None,
    "inpaint": None,
    "inpaint-model": None,
    "outpaint": None,
    "hires-fix": None,
    "controlnet": None,
    "upscale": "utility-gan_upscaler",
    "sdxl": "image_sdxl_simple",
    "sdxl-refiner": "sdxl_refiner_prompt_example",
    "sdxl-turbo": "sdxlturbo_example",
    "sd35": "sd3.5_simple_example",
    "flux-dev": "flux_dev_full_text_to_image",
    "flux-schnell": "flux_schnell_full_text_to_image",
    "flux-fill": "flux_fill_inpaint_example",
    "flux-kontext": "flux_kontext_dev_basic",
    "flux2-dev": "image_flux2",
    "flux2-klein-edit": "image_flux2_klein_image_edit_4b_distilled",
    "flux3-klein": "image_flux3_klein_distilled_t2i",
    "flux3-klein-edit": "image_flux3_klein_distilled_image_edit",
    "krea2": "image_krea2_turbo_t2i",
    "anima": "image_anima_base_v1",
    "qwen-image": "image_qwen_image",
    "qwen-image-2512": "image_qwen_Image_2512",
    "qwen-image-edit": "image_qwen_image_edit_2509",
    "qwen-image-edit-2511": "image_qwen_image_edit_2511_int8",
    "qwen-image-2.1-t2i": "image_qwen_image_2_1_t2i",
    "qwen-image-2.1-edit": "image_qwen_image_2_1_image_edit",
    "z-image-turbo": "image_z_image_turbo",
    "z-image-turbo-controlnet": "image_z_image_turbo_fun_union_controlnet",
    "wan22-t2v": "video_wan2_2_14B_t2v",
    "wan22-i2v": "video_wan2_2_14B_i2v",
    "wan22-flf2v": "video_wan2_2_14B_flf2v",
    "wan22-t2v-plain": "video_wan2_2_14B_t2v",
    "wan22-i2v-plain": "video_wan2_2_14B_i2v",
    "hunyuan-video-1.5": "video_hunyuan_video_1.5_720p_t2v",
    "ltx-2.3-t2v": "video_ltx2_3_t2v",
    "ltx-2.3-i2v": "video_ltx2_3_i2v",
    "ltx-2.5-t2v": "video_ltx2_5_t2v",
    "ltx-2.5-i2v": "video_ltx2_5_i2v",
    "minimax-h3-t2v": "video_minimax_h3_t2v",
    "minimax-h3-i2v": "video_minimax_h3_i2v",
    "minimax-h3-r2v": "video_minimax_h3_r2v",
    "seedvr2-upscale": "utility_seedvr2_7b_int8_upscale_image",
    "seedvr2-upscale-video": "utility_seedvr2_3b_int8_upscale_video",
    "ace-step": "audio_ace_step_1_t2a_song",
    "ace-step-1.5": "audio_ace_step1_5_xl_turbo",
    "minimax-music-3": "audio_minimax_music_3",
}


@dataclass(frozen=True)
class FamilyUse:
    """How much the official templates of a family are used.

    Args:
        family: the name of the models in ComfyUI's index.
        percent: the share of the use of all open official templates.
        templates: the templates here of that family.
    """

    family: str
    percent: float
    templates: tuple[str, ...]


def official_templates() -> dict[str, tuple[str, int]]:
    """Return the open templates of ComfyUI's index, by name: family and usage."""
    recorded = json.loads(USAGE_FILE.read_text(encoding="utf-8"))["templates"]
    return {name: (family, usage) for name, (family, usage) in recorded.items()}


def family_uses() -> list[FamilyUse]:
    """Return the families of ComfyUI's index, the most used one first."""
    official = official_templates()
    usages: dict[str, int] = {}
    for family, usage in official.values():
        usages[family] = usages.get(family, 0) + usage
    own: dict[str, list[str]] = {}
    for template, name in OFFICIAL.items():
        if name is not None:
            own.setdefault(official[name][0], []).append(template)
    total = sum(usages.values())
    most_used_first = sorted(usages, key=lambda family: -usages[family])
    return [
        FamilyUse(family, 100 * usages[family] / total, tuple(own.get(family, ())))
        for family in most_used_first
    ]


def covered_percent(templates: Collection[str] = tuple(OFFICIAL)) -> float:
    """Return the share of use of the families that one of these templates belongs to."""
    uses = family_uses()
    return sum(found.percent for found in uses if not set(templates).isdisjoint(found.templates))
