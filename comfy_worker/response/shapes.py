"""A result of the contract -> the shape of answer that a client expects.

Every shape but ``images`` carries pictures only. Where a picture went to storage, its link stands where the base64
or the data URI would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_worker.errors import NoOutput
from comfy_worker.request.dialect_names import a1111_sampler
from comfy_worker.response.schema import Media, Result
from comfy_worker.response_formats import ResponseFormat

__all__ = ["model_list", "options_answer", "shape"]

# Left out of A1111's echo of the request: pictures, and what must not be repeated.
NOT_ECHOED = {
    *("api_name", "comfy_org_api_key", "response", "init_images", "image", "image_url", "init_image", "images"),
    *("mask", "mask_url", "mask_image", "alwayson_scripts", "controlnet", "controlnets"),
}


def shape(result: Result, response: ResponseFormat, asked: Mapping[str, Any]) -> Any:
    """Give a result the shape that was asked for.

    Args:
        result: what the job made.
        response: the shape.
        asked: ``job["input"]`` as it came.

    Raises:
        NoOutput: there is no picture, and the shape carries nothing else.
    """
    if response == "images":
        return result.model_dump(exclude_none=True)
    if not result.images:
        raise NoOutput(
            f"the workflow made no picture, and response '{response}' carries nothing else; ask for 'images'"
        )
    return _SHAPES[response](result, asked)


def _uri(picture: Media) -> str:
    return f"data:{picture.mime_type};base64,{picture.data}" if picture.type == "base64" else picture.data


def _a1111(result: Result, asked: Mapping[str, Any]) -> dict[str, Any]:
    """As ``/sdapi/v1/txt2img`` and ``img2img`` answer; the warnings stand in ``info``."""
    values, pictures = result.parameters, result.images
    prompt, negative = str(values.get("prompt", "")), str(values.get("negative_prompt", ""))
    count, seed = len(pictures), -1 if result.seed is None else result.seed
    own_seeds = [None if result.seed is None else picture.seed for picture in pictures]
    seeds = [seed if own is None else own for own in own_seeds]
    checkpoint = str(values.get("checkpoint", ""))
    info = {
        "prompt": prompt,
        "all_prompts": [prompt] * count,
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * count,
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
        "sd_model_name": _stem(checkpoint),
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
    echo = {word: value for word, value in asked.items() if word not in NOT_ECHOED}
    return {"images": [picture.data for picture in pictures], "parameters": echo, "info": json.dumps(info)}


def _infotext(result: Result, picture: Media) -> str:
    """The text that A1111 writes into a picture's metadata."""
    values = result.parameters
    settings = {
        "Steps": values.get("steps"),
        "Sampler": a1111_sampler(str(values["sampler"])) if "sampler" in values else None,
        "Schedule type": str(values["scheduler"]).capitalize() if "scheduler" in values else None,
        "CFG scale": values.get("cfg"),
        "Distilled CFG Scale": values.get("guidance"),
        "Seed": result.seed if result.seed is None or picture.seed is None else picture.seed,
        "Size": f"{picture.width}x{picture.height}",
        "Model": _stem(str(values["checkpoint"])) if "checkpoint" in values else None,
        "VAE": values.get("vae"),
        "Denoising strength": values.get("denoise") if values.get("denoise") != 1 else None,
        "Clip skip": values.get("clip_skip"),
    }
    negative = values.get("negative_prompt")
    lines = [str(values.get("prompt", "")), *([f"Negative prompt: {negative}"] if negative else [])]
    last = ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    return "\n".join([*lines, last])


def _stem(file: str) -> str:
    return file.rpartition(".")[0] or file


_SHAPES: dict[str, Callable[[Result, Mapping[str, Any]], Any]] = {
    "image_base64": lambda result, _: {"image_base64": result.images[0].data, "seed": result.seed},
    "image_list": lambda result, _: [{"image": one.data, "seed": one.seed} for one in result.images],
    "base64_list": lambda result, _: [one.data for one in result.images],
    "image_url": lambda result, _: {
        "image_url": _uri(result.images[0]),
        "images": [_uri(one) for one in result.images],
        "seed": result.seed,
    },
    "image_url_list": lambda result, _: [{"image_url": _uri(one), "seed": one.seed} for one in result.images],
    "a1111": _a1111,
}


def model_list(checkpoints: Sequence[str]) -> list[dict[str, Any]]:
    """As ``/sdapi/v1/sd-models`` answers.

    Args:
        checkpoints: the files of ``checkpoints``, with their subfolders.
    """
    return [
        {"title": name, "model_name": _stem(name), "hash": None, "sha256": None, "filename": name, "config": None}
        for name in checkpoints
    ]


def options_answer(checkpoint: str) -> dict[str, Any]:
    """As ``/sdapi/v1/options`` answers, with the options that count here.

    Args:
        checkpoint: the one that holds where nothing is set; empty for the templates' own.
    """
    return {"sd_model_checkpoint": checkpoint, "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1}
