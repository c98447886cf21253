"""The jobs of the benchmarks; each call makes a job that ComfyUI has not cached."""

from __future__ import annotations

import base64
import io
import itertools
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

__all__ = [
    "CHECKPOINT",
    "edit",
    "edit_of_urls",
    "flat",
    "flat_batch",
    "from_checkpoint",
    "of_size",
    "photo",
    "with_batch",
    "with_format",
    "with_steps",
    "without_saving",
    "z_image",
]

CHECKPOINT = "placeholder.safetensors"
_numbers = itertools.count(1000)

Job = dict[str, Any]


def flat(size: int = 64) -> Job:
    """A picture of one colour: no model, so nearly all of the time is the worker's."""
    picture = _node("EmptyImage", width=size, height=size, batch_size=1, color=next(_numbers))
    return {"workflow": {"1": picture, "2": _save("1")}}


def from_checkpoint(size: int = 1024, checkpoint: str = CHECKPOINT) -> Job:
    """One step of a tiny checkpoint, scaled up; its noise is as large a PNG as a photo's."""
    sampler = {
        "steps": 1,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    latent = {
        "model": ["1", 0],
        "positive": ["3", 0],
        "negative": ["3", 0],
        "latent_image": ["2", 0],
    }
    scale = {"upscale_method": "bicubic", "width": size, "height": size, "crop": "disabled"}
    return {
        "workflow": {
            "1": _node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "2": _node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "3": _node("CLIPTextEncode", text="x", clip=["1", 1]),
            "4": _node("KSampler", seed=next(_numbers), **sampler, **latent),
            "5": _node("VAEDecode", samples=["4", 0], vae=["1", 2]),
            "6": _node("ImageScale", image=["5", 0], **scale),
            "7": _save("6"),
        }
    }


def edit(size: int = 1024) -> Job:
    """A picture of about 2 MB, blended with a colour."""
    colour = _node("EmptyImage", width=size, height=size, batch_size=1, color=next(_numbers))
    blend = {"image1": ["1", 0], "image2": ["3", 0], "blend_factor": 0.05, "blend_mode": "normal"}
    graph = {
        "1": _node("LoadImage", image="input.png"),
        "3": colour,
        "4": _node("ImageBlend", **blend),
        "5": _save("4"),
    }
    return {"workflow": graph, "images": [{"name": "input.png", "image": _photo(size)}]}


def edit_of_urls(urls: list[str], size: int = 64) -> Job:
    """A job whose pictures come from URLs; each is scaled and saved."""
    graph: dict[str, Any] = {}
    images = []
    for number, url in enumerate(urls):
        name = f"input-{number}.png"
        images.append({"name": name, "image": url})
        scale = {"upscale_method": "bicubic", "width": size, "height": size, "crop": "disabled"}
        graph[f"load-{number}"] = _node("LoadImage", image=name)
        graph[f"scale-{number}"] = _node("ImageScale", image=[f"load-{number}", 0], **scale)
        graph[f"save-{number}"] = _save(f"scale-{number}")
    return {"workflow": graph, "images": images}


def flat_batch(count: int) -> Job:
    """Several small pictures of one colour, in one job."""
    job = flat()
    job["workflow"]["1"]["inputs"]["batch_size"] = count
    return job


def with_batch(job: Job, count: int) -> Job:
    """A job of :func:`from_checkpoint` with several pictures."""
    job["workflow"]["2"]["inputs"]["batch_size"] = count
    return job


def with_steps(job: Job, steps: int) -> Job:
    """A job of :func:`from_checkpoint` with more steps."""
    job["workflow"]["4"]["inputs"]["steps"] = steps
    return job


def of_size(job: Job, size: int) -> Job:
    """A job of :func:`from_checkpoint` whose model works at the size of the picture."""
    job["workflow"]["2"]["inputs"] |= {"width": size, "height": size}
    return job


def z_image(size: int, unet: str, clip: str, vae: str) -> Job:
    """A picture of Z-Image; node 4 samples, as in :func:`from_checkpoint`."""
    sampler = {"steps": 1, "cfg": 1.0, "sampler_name": "res_multistep", "scheduler": "simple"}
    links = {
        "model": ["8", 0],
        "positive": ["3", 0],
        "negative": ["9", 0],
        "latent_image": ["2", 0],
    }
    return {
        "workflow": {
            "1": _node("UNETLoader", unet_name=unet, weight_dtype="default"),
            "2": _node("EmptySD3LatentImage", width=size, height=size, batch_size=1),
            "3": _node("CLIPTextEncode", text="x", clip=["6", 0]),
            "4": _node("KSampler", seed=next(_numbers), denoise=1.0, **sampler, **links),
            "5": _node("VAEDecode", samples=["4", 0], vae=["7", 0]),
            "6": _node("CLIPLoader", clip_name=clip, type="lumina2", device="default"),
            "7": _node("VAELoader", vae_name=vae),
            "8": _node("ModelSamplingAuraFlow", shift=3.0, model=["1", 0]),
            "9": _node("ConditioningZeroOut", conditioning=["3", 0]),
            "10": _save("5"),
        }
    }


def without_saving(job: Job) -> Job:
    """The same graph with an end that only looks at the picture's size."""
    graph = {
        node_id: node
        for node_id, node in job["workflow"].items()
        if node["class_type"] != "SaveImage"
    }
    saved = [
        node["inputs"]["images"]
        for node in job["workflow"].values()
        if node["class_type"] == "SaveImage"
    ]
    graph["size"] = _node("GetImageSize", image=saved[0])
    graph["end"] = _node("PreviewAny", source=["size", 0])
    return {**job, "workflow": graph}


def photo(size: int) -> bytes:
    """A picture that compresses like a photo, as a PNG."""
    return base64.b64decode(_photo(size))


def with_format(job: Job, file_format: str) -> Job:
    """The same job with its pictures in another format, in this worker's words."""
    return {**job, "output": {"format": file_format}}


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _save(node_id: str) -> dict[str, Any]:
    return _node("SaveImage", images=[node_id, 0], filename_prefix="benchmark")


@cache
def _photo(size: int) -> str:
    """A picture that compresses like a photo, as base64: soft shapes under grain."""
    random = np.random.default_rng(0)
    shapes = random.integers(0, 255, (size // 16, size // 16, 3), dtype=np.uint8)
    soft = Image.fromarray(shapes).resize((size, size), Image.Resampling.BICUBIC)
    grain = random.normal(0, 4, (size, size, 3)).astype(np.int16)
    pixels = (np.asarray(soft).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
