"""A clone without models draws what the prompt says, with the toy model."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_common.console import Console
from comfy_common.placeholder_names import TOY_CHECKPOINT, TOY_LORA
from comfy_local.first_picture import Wanted, make_picture
from comfy_setup import models
from tests.e2e.conftest import Client, pictures

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

Pixels = np.ndarray[Any, Any]


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(int)


def share(picture: Pixels, colour: tuple[int, int, int]) -> float:
    """The share of pixels whose colour is near this one."""
    near: Pixels = np.abs(picture - colour).max(axis=2) < 90
    return float(near.mean())


def is_right(picture: Pixels) -> bool:
    """Whether there is something yellow on a purple ground."""
    return share(picture, (128, 26, 191)) > 0.6 and 0.01 < share(picture, (255, 230, 13)) < 0.4


def test_run_draws_the_prompt(tmp_path: Path) -> None:
    environ = {**os.environ, "MODELS_DIR": str(tmp_path / "models"), "SD_MODEL": ""}

    stream, output = io.StringIO(), tmp_path / "first.png"
    console = Console(stream)
    assert models.ensure_checkpoint(console, environ)
    assert make_picture(console, environ, {"seed": 1}, Wanted(output, toy_only=True)) == 0
    with Image.open(output) as image:
        assert image.size == (256, 256)
        assert is_right(pixels(image))
    message = stream.getvalue()
    assert "a toy model of 5 MB draws coloured shapes" in message
    assert 'The prompt is "two yellow stars on a purple background"' in message
    assert "Warning" not in message


def test_each_result_says_that_a_toy_drew(toy_worker: Client) -> None:
    for _ in range(2):
        result = toy_worker.output({"prompt": "a star", "steps": 1})
        (warning,) = result["warnings"]
        assert f"{TOY_CHECKPOINT} stood in, a toy model" in warning
        assert result["parameters"]["cfg"] == 1
        (picture,) = pictures(result)
        assert picture.size == (256, 256)


def test_a_high_cfg_draws_the_prompt_too(toy_worker: Client) -> None:
    prompt = "a big yellow star on a purple background"
    job = {"prompt": prompt, "seed": 1, "width": 512, "height": 512, "cfg": 7}
    (picture,) = pictures(toy_worker.output(job))
    assert picture.size == (512, 512)
    assert is_right(pixels(picture))


def test_the_clients_settings_stay(toy_worker: Client) -> None:
    chosen = {"scheduler": "karras", "cfg": 3, "width": 128, "height": 64}
    result = toy_worker.output({"prompt": "a star", "steps": 1, **chosen})
    assert {name: result["parameters"][name] for name in chosen} == chosen


def test_a_named_model_is_never_replaced(toy_worker: Client) -> None:
    job = toy_worker.runsync({"prompt": "a star", "checkpoint": "dreamshaper.safetensors"})
    assert job["status"] == "FAILED"
    assert "MODEL_NOT_FOUND" in job["error"]


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


@pytest.mark.parametrize("denoise", [0.3, 0.6])
def test_img2img_keeps_the_ground(toy_worker: Client, denoise: float) -> None:
    drawn = Image.new("RGB", (256, 256), (128, 26, 191))
    drawn.paste((255, 230, 13), (90, 90, 166, 166))
    job = {
        "workflow": "img2img",
        "image": encoded(drawn),
        "prompt": "a blue heart",
        "denoise": denoise,
        "seed": 1,
    }
    result = toy_worker.output(job)
    assert result["parameters"]["scheduler"] == "simple"
    (picture,) = pictures(result)
    assert picture.size == (256, 256)
    assert share(pixels(picture), (128, 26, 191)) > 0.6
    assert share(pixels(picture), (255, 230, 13)) < 0.01


def test_all_noise_keeps_the_scheduler(toy_worker: Client) -> None:
    result = toy_worker.output({"prompt": "a star", "steps": 1})
    assert result["parameters"]["scheduler"] == "karras"


def test_inpainting_draws_into_the_mask(toy_worker: Client) -> None:
    drawn = Image.new("RGB", (256, 256), (128, 26, 191))
    drawn.paste((255, 230, 13), (20, 20, 50, 50))
    mask = Image.new("L", (256, 256))
    box = (80, 80, 220, 220)
    mask.paste(255, box)
    job = {
        "workflow": "inpaint",
        "image": encoded(drawn),
        "mask": encoded(mask),
        "prompt": "a red square",
        "seed": 1,
    }
    (picture,) = pictures(toy_worker.output(job))
    red, yellow = (242, 20, 20), (255, 230, 13)
    inside = pixels(picture.crop(box))
    assert share(inside, (128, 26, 191)) > 0.3
    assert 0.1 < share(inside, red) < 0.6
    assert share(pixels(picture), red) < 1.02 * share(inside, red) * inside.size / (3 * 256**2)
    assert share(pixels(picture.crop((20, 20, 50, 50))), yellow) > 0.6


def test_the_outline_lora_hollows_the_shapes(toy_worker: Client) -> None:
    job = {"prompt": "a big yellow square on a purple background", "seed": 1, "steps": 8}
    plain, zero, full = (
        pixels(pictures(toy_worker.output({**job, **lora}))[0])
        for lora in (
            {},
            {"loras": [{"name": TOY_LORA, "strength": 0.0}]},
            {"loras": [{"name": TOY_LORA, "strength": 1.0}]},
        )
    )
    assert np.array_equal(plain, zero)
    yellow = (255, 230, 13)
    assert 0 < share(full, yellow) < 0.7 * share(plain, yellow)
