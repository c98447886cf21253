"""Graphs that tests queue, written out by hand: the smallest that run on the placeholder checkpoint."""

from __future__ import annotations

from typing import Any

from tests import placeholders


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def txt2img(
    prompt: str = "a lighthouse", seed: int = 1, **changes: dict[str, Any]
) -> dict[str, Any]:
    """Text to image, 64x64 in 2 steps; ``changes`` sets inputs by node: ``sampler={"steps": 4}``."""
    graph = {
        "loader": node("CheckpointLoaderSimple", ckpt_name=placeholders.CHECKPOINT),
        "positive": node("CLIPTextEncode", text=prompt, clip=["loader", 1]),
        "negative": node("CLIPTextEncode", text="blurry", clip=["loader", 1]),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": node(
            "KSampler",
            model=["loader", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=seed,
            steps=2,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["loader", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="test"),
    }
    for node_id, inputs in changes.items():
        graph[node_id]["inputs"].update(inputs)
    return graph
