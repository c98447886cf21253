"""The shipped templates, run whole with placeholders: from a job's input to a picture or clip in its result."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import dataclass, field
from typing import Any

import av
import pytest
from PIL import Image

from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings
from tests import pictures, placeholders, shipped
from tests.base_graphs import node
from tests.comfyui.conftest import TEMPLATES, RealComfyUI

pytestmark = pytest.mark.comfyui

SIZE = {"width": 64, "height": 64}
PHOTO = pictures.encoded(pictures.photo())
MASK = pictures.encoded(pictures.mask())
SD15 = {"checkpoint": "placeholder", "prompt": "a cat", "seed": 5, "steps": 2}
FLUX2 = {**SD15, "checkpoint": placeholders.FLUX2, "vae": placeholders.VAE_FLUX2}
# The text encoders of the large families cannot be had small; CLIP-L takes their place.
CLIP_L = {"2.clip_name": placeholders.CLIP_L, "2.type": "stable_diffusion"}
SDXL = {**SD15, **SIZE, "checkpoint": "placeholder-sdxl"}


@dataclass(frozen=True)
class Case:
    """What is asked of a template, and the size of what comes."""

    job_input: dict[str, Any]
    size: tuple[int, int] = (64, 64)
    parameters: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Any]:
        """The job's input for a template."""
        return {
            "workflow": name,
            **self.job_input,
            "parameters": self.parameters,
            "overrides": self.overrides,
        }


CASES = {
    "txt2img": Case({**SD15, **SIZE}),
    "img2img": Case({**SD15, "image": PHOTO}),
    "inpaint": Case({**SD15, "image": PHOTO, "mask": MASK}),
    "inpaint-model": Case(
        {**SD15, "checkpoint": "placeholder-inpaint", "image": PHOTO, "mask": MASK}
    ),
    "outpaint": Case(
        {**SD15, "image": PHOTO}, (128, 64), {"left": 64, "right": 0, "top": 0, "bottom": 0}
    ),
    "hires-fix": Case({**SD15, **SIZE}, (128, 128), {"upscale_by": 2}),
    "upscale": Case({"image": PHOTO}, (128, 128), {"upscale_model": placeholders.UPSCALER}),
    "controlnet": Case(
        {**SD15, **SIZE, "image": PHOTO}, overrides={"6.control_net_name": "canny-a"}
    ),
    "sdxl-refiner": Case(SDXL, parameters={"refiner_checkpoint": placeholders.CHECKPOINT_SDXL}),
    "sdxl-turbo": Case(SDXL),
    "sd35": Case({**SDXL, "checkpoint": "placeholder-sd3"}),
    "sdxl": Case(SDXL),
}
# Versions before this one know FLUX.2 dev only, which is 6144 wide.
if shipped.comfyui_version() >= (0, 9, 2):
    CASES |= {
        "flux2-dev": Case({**FLUX2, **SIZE}, overrides=CLIP_L),
        "flux2-klein-edit": Case(
            {**FLUX2, "image": PHOTO},
            (96, 96),
            {"image2": PHOTO},
            {**CLIP_L, "5.megapixels": 0.01, "9.megapixels": 0.01},
        ),
    }


def run(comfyui: RealComfyUI, job_input: dict[str, Any], sd_model: str = "") -> dict[str, Any]:
    """A job's result."""
    runner = JobRunner(Settings(SD_MODEL=sd_model), comfyui.supervisor, TEMPLATES)
    result = runner.run({"id": "test", "input": job_input}, threading.Event())
    assert "error" not in result, result
    return result


def picture(result: dict[str, Any]) -> Image.Image:
    """The only picture of a result."""
    (media,) = result["images"]
    image = decoded(media)
    assert image.size == (media["width"], media["height"])
    return image


def decoded(media: dict[str, Any]) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(media["data"]))) as opened:
        image: Image.Image = opened.copy()
    return image


@pytest.mark.parametrize("name", CASES)
def test_a_template_makes_a_picture(comfyui: RealComfyUI, name: str) -> None:
    case = CASES[name]
    result = run(comfyui, case.of(name))
    assert picture(result).size == case.size
    assert result["workflow"] == name
    assert result["warnings"] == []
    expected = {
        key: value
        for key, value in case.job_input.items()
        if key not in {"image", "mask", "checkpoint"}
    }
    own = {key: value for key, value in case.parameters.items() if value is not PHOTO}
    assert result["parameters"].items() >= {**expected, **own}.items()


def test_sd_model_replaces_a_declared_checkpoint(
    comfyui: RealComfyUI,
) -> None:
    job_input = CASES["sdxl-refiner"].of("sdxl-refiner")
    del job_input["checkpoint"]
    result = run(comfyui, job_input, sd_model="placeholder-sdxl")
    assert result["parameters"]["checkpoint"] == placeholders.CHECKPOINT_SDXL
    assert picture(result).size == (64, 64)


def test_a_seed_makes_the_same_pixels_again(comfyui: RealComfyUI) -> None:
    job_input = {**SD15, **SIZE, "batch_size": 2, "seed": -1}
    first = run(comfyui, job_input)
    assert len(first["images"]) == 2
    other = run(comfyui, job_input)
    again = run(comfyui, {**job_input, "seed": first["seed"]})
    drawn = [
        [decoded(media).tobytes() for media in result["images"]] for result in (first, other, again)
    ]
    assert len({*drawn[0], *drawn[1]}) == 4
    assert drawn[0] == drawn[2]


def test_inpainting_leaves_the_rest_as_it_was(comfyui: RealComfyUI) -> None:
    result = picture(
        run(comfyui, {**CASES["inpaint"].job_input, "parameters": {"grow_mask_by": 0}})
    )
    kept, painted = (0, 0, 32, 64), (32, 0, 64, 64)
    assert result.crop(kept).tobytes() == pictures.photo().crop(kept).tobytes()
    assert result.crop(painted).tobytes() != pictures.photo().crop(painted).tobytes()


@pytest.mark.parametrize("name", ["flux-dev", "flux-schnell"])
def test_flux_makes_a_picture_with_another_text_encoder(comfyui: RealComfyUI, name: str) -> None:
    """The template as a custom graph: its own two text encoders cannot be had small."""
    graph = shipped.graph(name)
    graph["99"] = node("CLIPLoader", clip_name=placeholders.CLIP_L, type="stable_diffusion")
    job_input = {
        **SIZE,
        "checkpoint": "placeholder-flux",
        "vae": "taesd-16",
        "prompt": "a cat",
        "seed": 5,
        "steps": 2,
    }
    result = run(comfyui, {**job_input, "workflow": graph, "overrides": {"4.clip": ["99", 0]}})
    assert picture(result).size == (64, 64)
    assert result["workflow"] == "custom"


WAN = {
    **SIZE,
    "vae": placeholders.VAE_WAN,
    "length": 5,
    "fps": 8,
    "steps": 2,
    "seed": 5,
    "prompt": "a cat",
}
WAN_T2V = ("wan22-t2v-plain", "wan22-t2v")
WAN_TEMPLATES = (*WAN_T2V, "wan22-i2v-plain", "wan22-i2v", "wan22-flf2v")


def wan_input(name: str, **changes: Any) -> dict[str, Any]:
    """A request for a template of Wan with the placeholders."""
    model = placeholders.WAN if name in WAN_T2V else placeholders.WAN_I2V
    parameters = {"high_noise_model": model, "low_noise_model": model}
    overrides = {"3.clip_name": placeholders.CLIP_L, "3.type": "sd3"}
    images = {} if name in WAN_T2V else {"image": PHOTO}
    if name == "wan22-flf2v":
        parameters["last_image"] = PHOTO
    if name in ("wan22-t2v", "wan22-i2v") and shipped.runs_here(name):
        for word in ("high", "low"):
            overrides[f"Load LoRA (turbo, {word} noise).lora_name"] = placeholders.LORA_WAN
    job_input = {"workflow": name, **WAN, **images, "overrides": overrides, **changes}
    return {**job_input, "parameters": {**parameters, **changes.get("parameters", {})}}


def frames_of(result: dict[str, Any]) -> list[Any]:
    """The frames of a result's only clip."""
    assert result["images"] == []
    (clip,) = result["videos"]
    assert clip["mime_type"] == "video/mp4"
    with av.open(io.BytesIO(base64.b64decode(clip["data"]))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 8
    return frames


@pytest.mark.parametrize("name", WAN_TEMPLATES)
def test_wan_makes_a_clip(comfyui: RealComfyUI, name: str) -> None:
    frames = frames_of(run(comfyui, wan_input(name)))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 5


@pytest.mark.parametrize("name", ["wan22-t2v", "wan22-i2v"])
def test_turbo_changes_the_clip(comfyui: RealComfyUI, name: str) -> None:
    if not shipped.runs_here(name):
        pytest.skip("this ComfyUI runs the template without turbo")
    full = frames_of(run(comfyui, wan_input(name, cfg=1)))
    turbo = frames_of(run(comfyui, wan_input(name, cfg=1, parameters={"turbo": True})))
    assert any((a != b).any() for a, b in zip(full, turbo, strict=True))
