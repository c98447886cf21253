"""The placeholders run, and what goes in shows in the picture: else no test that compares pixels could fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from comfy_local import placeholder
from tests import placeholders
from tests.comfyui.conftest import RealComfyUI

pytestmark = pytest.mark.comfyui

Graph = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def txt2img(checkpoint: str = placeholders.CHECKPOINT, **changes: Any) -> Graph:
    values = {"prompt": "a cat", "seed": 1, "latent": "EmptyLatentImage", **changes}
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", text=values["prompt"], clip=["model", 1]),
        "negative": node("CLIPTextEncode", text="", clip=["model", 1]),
        "latent": node(values["latent"], width=64, height=64, batch_size=1),
        "sampler": node(
            "KSampler",
            model=["model", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=values["seed"],
            steps=2,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="placeholder"),
    }


def sd3(**changes: Any) -> Graph:
    return txt2img(placeholders.CHECKPOINT_SD3, latent="EmptySD3LatentImage", **changes)


def flux(**changes: Any) -> Graph:
    graph = txt2img(latent="EmptySD3LatentImage", **changes)
    return separate(graph, placeholders.FLUX, "stable_diffusion", placeholders.VAE_16)


def wan(**changes: Any) -> Graph:
    graph = separate(txt2img(**changes), placeholders.WAN, "sd3", placeholders.VAE_WAN)
    graph["latent"] = node("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)
    return graph


def separate(graph: Graph, model: str, clip_type: str, vae: str) -> Graph:
    """Load model, text encoder and VAE from files of their own."""
    graph["model"] = node("UNETLoader", unet_name=model, weight_dtype="default")
    graph["clip"] = node("CLIPLoader", clip_name=placeholders.CLIP_L, type=clip_type)
    graph["vae"] = node("VAELoader", vae_name=vae)
    graph["positive"]["inputs"]["clip"] = graph["negative"]["inputs"]["clip"] = ["clip", 0]
    graph["decode"]["inputs"]["vae"] = ["vae", 0]
    return graph


FAMILIES = {
    "sd15": txt2img,
    "sdxl": lambda **changes: txt2img(placeholders.CHECKPOINT_SDXL, **changes),
    "sd3": sd3,
    "flux": flux,
    "wan": wan,
}


def pixels(comfyui: RealComfyUI, graph: Graph) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(image) for image in comfyui.images(graph)])


def test_a_seed_gives_the_same_weights_each_time() -> None:
    shapes = placeholder.taesd_shapes(4)
    drawn = [
        placeholder.random_weights(shapes, seed)["taesd_decoder.1.weight"] for seed in (1, 1, 2)
    ]
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_seed_and_prompt_show_in_the_picture(comfyui: RealComfyUI, family: str) -> None:
    graph = FAMILIES[family]
    picture = pixels(comfyui, graph())
    assert picture.shape == (5 if family == "wan" else 1, 64, 64, 3)
    assert not np.array_equal(picture, pixels(comfyui, graph(seed=2)))
    assert not np.array_equal(picture, pixels(comfyui, graph(prompt="a dog")))


@pytest.mark.parametrize(
    ("checkpoint", "lora", "model", "clip"),
    [
        (placeholders.CHECKPOINT, placeholders.LORA, 1.0, 0.0),
        (placeholders.CHECKPOINT, placeholders.LORA, 0.0, 1.0),
        (placeholders.CHECKPOINT, placeholders.LORA_B, 1.0, 1.0),
        (placeholders.CHECKPOINT, placeholders.LORA_MODEL_ONLY, 1.0, 0.0),
        (placeholders.CHECKPOINT_SDXL, placeholders.LORA_SDXL, 1.0, 0.0),
    ],
)
def test_a_lora_shows_in_the_picture(
    comfyui: RealComfyUI, checkpoint: str, lora: str, model: float, clip: float
) -> None:
    graph = txt2img(checkpoint)
    plain = pixels(comfyui, graph)
    graph["lora"] = node("LoraLoader", model=["model", 0], clip=["model", 1], lora_name=lora)
    graph["lora"]["inputs"] |= {"strength_model": model, "strength_clip": clip}
    graph["sampler"]["inputs"]["model"] = ["lora", 0]
    graph["positive"]["inputs"]["clip"] = ["lora", 1]
    assert not np.array_equal(plain, pixels(comfyui, graph))


@pytest.mark.parametrize(
    "changes", [{"strength": 0.5}, {"end_percent": 0.4}, {"start_percent": 0.4}]
)
def test_a_controlnet_shows_in_the_picture(comfyui: RealComfyUI, changes: dict[str, float]) -> None:
    graph = txt2img()
    plain = pixels(comfyui, graph)
    graph["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    graph["controlnet"] = node("ControlNetLoader", control_net_name=placeholders.CONTROLNET)
    graph["apply"] = node(
        "ControlNetApplyAdvanced",
        positive=["positive", 0],
        negative=["negative", 0],
        control_net=["controlnet", 0],
        image=["image", 0],
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    graph["sampler"]["inputs"] |= {"positive": ["apply", 0], "negative": ["apply", 1]}
    whole = pixels(comfyui, graph)
    assert not np.array_equal(plain, whole)
    graph["apply"]["inputs"] |= changes
    assert not np.array_equal(whole, pixels(comfyui, graph))
    graph["apply"]["inputs"] |= {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    graph["controlnet"]["inputs"]["control_net_name"] = placeholders.CONTROLNET_B
    assert not np.array_equal(whole, pixels(comfyui, graph))


@pytest.mark.parametrize("type_", ["auto", "depth"])
def test_the_union_controlnet_takes_a_type(comfyui: RealComfyUI, type_: str) -> None:
    graph = txt2img()
    plain = pixels(comfyui, graph)
    graph["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    graph["controlnet"] = node("ControlNetLoader", control_net_name=placeholders.CONTROLNET_UNION)
    graph["type"] = node("SetUnionControlNetType", control_net=["controlnet", 0], type=type_)
    graph["apply"] = node(
        "ControlNetApply",
        conditioning=["positive", 0],
        control_net=["type", 0],
        image=["image", 0],
        strength=1.0,
    )
    graph["sampler"]["inputs"]["positive"] = ["apply", 0]
    assert not np.array_equal(plain, pixels(comfyui, graph))


def test_the_inpaint_checkpoint_sees_the_mask(comfyui: RealComfyUI) -> None:
    graph = txt2img(placeholders.CHECKPOINT_INPAINT)
    graph["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    graph["mask"] = node("SolidMask", value=1.0, width=64, height=64)
    graph["inpaint"] = node(
        "InpaintModelConditioning",
        positive=["positive", 0],
        negative=["negative", 0],
        vae=["model", 2],
        pixels=["image", 0],
        mask=["mask", 0],
        noise_mask=True,
    )
    graph["sampler"]["inputs"] |= {"positive": ["inpaint", 0], "negative": ["inpaint", 1]}
    graph["sampler"]["inputs"]["latent_image"] = ["inpaint", 2]
    whole = pixels(comfyui, graph)
    graph["mask"]["inputs"]["value"] = 0.0
    assert not np.array_equal(whole, pixels(comfyui, graph))


def test_the_embedding_shows_in_the_picture(comfyui: RealComfyUI) -> None:
    name = placeholders.EMBEDDING.removesuffix(".safetensors")
    known = pixels(comfyui, txt2img(prompt=f"a cat embedding:{name}"))
    assert not np.array_equal(known, pixels(comfyui, txt2img(prompt="a cat embedding:absent")))


def test_the_upscaler_doubles_the_size(comfyui: RealComfyUI) -> None:
    graph = txt2img()
    graph["upscaler"] = node("UpscaleModelLoader", model_name=placeholders.UPSCALER)
    graph["upscale"] = node(
        "ImageUpscaleWithModel", upscale_model=["upscaler", 0], image=["decode", 0]
    )
    graph["save"]["inputs"]["images"] = ["upscale", 0]
    assert pixels(comfyui, graph).shape == (1, 128, 128, 3)
