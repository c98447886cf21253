"""LoRAs, ControlNets, pictures and overrides, asked for as a client asks: through the handler, in any graph."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests import placeholders
from tests.e2e.conftest import Client, pictures
from tests.graphs import txt2img
from tests.pictures import encoded

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SMALL = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2, "seed": 1}


def drawing() -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="black")
    return image


def pixels(worker: Client, asked: dict[str, Any]) -> bytes:
    (picture,) = pictures(worker.output(asked))
    return picture.tobytes()


def test_a_lora_by_key_and_by_tag_is_the_same(worker: Client) -> None:
    plain = pixels(worker, SMALL)
    by_key = pixels(worker, {**SMALL, "loras": [{"name": "lora-a", "strength": 0.7}]})
    by_tag = pixels(worker, {**SMALL, "prompt": "a lighthouse <lora:lora-a:0.7>"})
    assert plain != by_key == by_tag


def test_a_tag_leaves_the_prompt(worker: Client) -> None:
    result = worker.output({**SMALL, "prompt": "a lighthouse, <lora:lora-a:0.7>, at night"})
    assert result["parameters"]["prompt"] == "a lighthouse, at night"


def test_a_controlnet_goes_into_a_template_and_a_custom_graph_alike(worker: Client) -> None:
    control = {"controlnets": [{"type": "canny", "image": encoded(drawing()), "strength": 0.9}]}
    custom = {"workflow": txt2img(), "prompt": "a lighthouse", "seed": 1}
    assert pixels(worker, {**SMALL, **control}) != pixels(worker, SMALL)
    assert pixels(worker, {**custom, **control}) != pixels(worker, custom)


def test_a_lora_of_another_family_is_refused_before_it_costs_anything(worker: Client) -> None:
    job = worker.runsync({**SMALL, "loras": [{"name": placeholders.LORA_SDXL}]})
    assert job["error"] == (
        f"MODEL_MISMATCH: {placeholders.LORA_SDXL} is made for SDXL, and the graph's model is SD 1.5; "
        "name one that is made for SD 1.5"
    )


def test_a_picture_is_changed_and_only_under_the_mask(worker: Client) -> None:
    image, mask = drawing(), Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 16, 64))
    small = {"prompt": "a lighthouse", "steps": 2, "seed": 1}
    changed = worker.output({**small, "image": encoded(image)})
    assert changed["workflow"] == "img2img"
    inpainted = worker.output({**small, "image": encoded(image), "mask": encoded(mask)})
    assert inpainted["workflow"] == "inpaint"
    (picture,) = pictures(inpainted)
    right = (32, 0, 64, 64)
    assert picture.convert("RGB").crop(right).tobytes() == image.crop(right).tobytes()
    assert picture.convert("RGB").tobytes() != image.tobytes()


def test_an_override_reaches_any_input(worker: Client) -> None:
    by_override = pixels(worker, {"workflow": txt2img(), "seed": 1, "overrides": {"sampler.steps": 3}})
    assert by_override == pixels(worker, {"workflow": txt2img(), "seed": 1, "steps": 3})


def test_an_override_counts_more_than_a_parameter(worker: Client) -> None:
    result = worker.output({"workflow": txt2img(), "seed": 1, "steps": 5, "overrides": {"sampler.steps": 3}})
    assert result["parameters"]["steps"] == 3


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"loras": [{"name": "nope"}]}, "MODEL_NOT_FOUND: lora 'nope' is not installed"),
        ({"loras": [{"name": "lora-a", "strength": 200}]}, "INVALID_INPUT: loras.0.strength must be less than"),
        ({"prompt": "<lora:lora-a:much>"}, "INVALID_VALUE: prompt has the tag"),
        ({"overrides": {"99.steps": 3}}, "NO_PLACE: overrides '99.steps'"),
        ({"controlnets": [{"type": "canny", "image": "?"}]}, "INVALID_MEDIA: controlnets.0.image must be base64"),
        (
            {"controlnets": [{"type": "depth", "image": encoded(drawing()), "preprocess": True}]},
            "NODE_NOT_INSTALLED: controlnets preprocess for type 'depth' needs the node pack comfyui_controlnet",
        ),
        ({"clip_skip": 25}, "INVALID_INPUT: clip_skip must be less than or equal to 24"),
    ],
)
def test_what_cannot_be_edited_in_is_told(worker: Client, asked: dict[str, Any], error: str) -> None:
    job = worker.runsync({**SMALL, **asked})
    assert job["status"] == "FAILED"
    assert job["error"].startswith(error)
