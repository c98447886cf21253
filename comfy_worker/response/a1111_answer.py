"""Answers ``txt2img`` and ``img2img`` as A1111's API does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comfy_worker.request.dialect_names import a1111_sampler
from comfy_worker.response.schema import Media, Result

__all__ = ["a1111_answer", "stem"]

# Left out when the answer repeats the request: pictures, and what must not be repeated.
NOT_REPEATED = {
    *("api_name", "comfy_org_api_key", "response"),
    *("init_images", "image", "image_url", "init_image", "images"),
    *("mask", "mask_url", "mask_image"),
    *("alwayson_scripts", "controlnet", "controlnets"),
}


def a1111_answer(result: Result, raw_input: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as ``/sdapi/v1/txt2img`` does; the warnings are in ``info``.

    Args:
        result: what the job made; it has a picture.
        raw_input: ``job["input"]`` as the client sent it.
    """
    repeated = {key: value for key, value in raw_input.items() if key not in NOT_REPEATED}
    return {
        "images": [picture.data for picture in result.images],
        "parameters": repeated,
        "info": json.dumps(_info(result)),
    }


def _info(result: Result) -> dict[str, Any]:
    values, pictures = result.parameters, result.images
    prompt, negative_prompt = str(values.get("prompt", "")), str(values.get("negative_prompt", ""))
    count = len(pictures)
    seeds = _seeds(result)
    seed = -1 if result.seed is None else result.seed
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * count,
        "negative_prompt": negative_prompt,
        "all_negative_prompts": [negative_prompt] * count,
        "seed": seed,
        "all_seeds": seeds,
        "subseed": seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": pictures[0].width,
        "height": pictures[0].height,
        "sampler_name": a1111_sampler(str(values.get("sampler", ""))),
        "cfg_scale": values.get("cfg"),
        "steps": values.get("steps"),
        "batch_size": count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": stem(str(values.get("checkpoint", ""))),
        "sd_model_hash": None,
        "sd_vae_name": values.get("vae"),
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": values.get("denoise"),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [_infotext(result, picture) for picture in pictures],
        "styles": [],
        "clip_skip": values.get("clip_skip", 1),
        "is_using_inpainting_conditioning": False,
        "warnings": result.warnings,
    }


def _seeds(result: Result) -> list[int]:
    """Return the seed of each picture; -1 if the workflow has no seed."""
    seed = result.seed
    if seed is None:
        return [-1] * len(result.images)
    return [seed if picture.seed is None else picture.seed for picture in result.images]


def _infotext(result: Result, picture: Media) -> str:
    """Write the text that A1111 writes into a picture's metadata."""
    values = result.parameters
    seed = result.seed
    if seed is not None and picture.seed is not None:
        seed = picture.seed
    denoise = values.get("denoise")
    settings = {
        "Steps": values.get("steps"),
        "Sampler": a1111_sampler(str(values["sampler"])) if "sampler" in values else None,
        "Schedule type": str(values["scheduler"]).capitalize() if "scheduler" in values else None,
        "CFG scale": values.get("cfg"),
        "Distilled CFG Scale": values.get("guidance"),
        "Seed": seed,
        "Size": f"{picture.width}x{picture.height}",
        "Model": stem(str(values["checkpoint"])) if "checkpoint" in values else None,
        "VAE": values.get("vae"),
        "Denoising strength": denoise if denoise != 1 else None,
        "Clip skip": values.get("clip_skip"),
    }
    lines = [str(values.get("prompt", ""))]
    negative_prompt = values.get("negative_prompt")
    if negative_prompt:
        lines.append(f"Negative prompt: {negative_prompt}")
    lines.append(
        ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    )
    return "\n".join(lines)


def stem(file: str) -> str:
    """Return a file's name without its extension, as A1111 names models."""
    return file.rpartition(".")[0] or file
