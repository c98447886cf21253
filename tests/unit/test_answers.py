"""A result of the contract in each shape that a client may expect."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from comfy_worker.errors import NoOutput
from comfy_worker.response.a1111_options import model_list, options_answer
from comfy_worker.response.schema import Media, Result, Timings
from comfy_worker.response.shapes import shape
from comfy_worker.response_formats import ResponseFormat


def picture(data: str, **changes: Any) -> Media:
    values = {
        "filename": "a.png",
        "type": "base64",
        "data": data,
        "mime_type": "image/png",
        "node_id": "9",
        "bytes": 3,
        "width": 512,
        "height": 768,
        "seed": 7,
    }
    return Media(**{**values, **changes})


def result(*images: Media, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "images": list(images),
        "workflow": "txt2img",
        "seed": 7,
        "parameters": {
            "prompt": "a fox",
            "negative_prompt": "fog",
            "steps": 20,
            "cfg": 7.0,
            "sampler": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1.0,
            "checkpoint": "sub/model.safetensors",
        },
        "timings": Timings(stages={}, nodes={}),
        "warnings": ["something"],
    }
    return Result(**{**values, **changes})


TWO = result(picture("AA"), picture("BB"))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("image_base64", {"image_base64": "AA", "seed": 7}),
        ("image_list", [{"image": "AA", "seed": 7}, {"image": "BB", "seed": 7}]),
        ("base64_list", ["AA", "BB"]),
        (
            "image_url",
            {
                "image_url": "data:image/png;base64,AA",
                "images": ["data:image/png;base64,AA", "data:image/png;base64,BB"],
                "seed": 7,
            },
        ),
        (
            "image_url_list",
            [
                {"image_url": "data:image/png;base64,AA", "seed": 7},
                {"image_url": "data:image/png;base64,BB", "seed": 7},
            ],
        ),
        ("images", TWO.model_dump(exclude_none=True)),
    ],
)
def test_each_shape_is_exactly_what_clients_expect(response: ResponseFormat, expected: Any) -> None:
    assert shape(TWO, response, {}) == expected


def test_a1111s_shape() -> None:
    job_input = {
        "api_name": "img2img",
        "init_images": ["x"],
        "prompt": "a fox",
        "steps": 20,
        "comfy_org_api_key": "k",
    }
    answer = shape(TWO, "a1111", job_input)
    assert answer["images"] == ["AA", "BB"]
    assert answer["parameters"] == {"prompt": "a fox", "steps": 20}
    info = json.loads(answer["info"])
    assert (
        info["infotexts"]
        == [
            "a fox\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, "
            "Seed: 7, Size: 512x768, Model: sub/model"
        ]
        * 2
    )
    assert (info["seed"], info["all_seeds"], info["all_prompts"]) == (7, [7, 7], ["a fox", "a fox"])
    assert (info["width"], info["height"], info["sampler_name"]) == (512, 768, "DPM++ 2M")
    assert info["warnings"] == ["something"]


def test_a1111s_shape_of_a_graph_without_any_parameter() -> None:
    info = json.loads(shape(result(picture("AA"), parameters={}, seed=None), "a1111", {})["info"])
    assert (info["seed"], info["all_seeds"]) == (-1, [-1])
    assert info["infotexts"] == ["\nSize: 512x768"]


def test_a_stored_picture_is_given_by_its_link() -> None:
    stored = result(picture("https://s3/a.png", type="s3_url"))
    assert shape(stored, "image_url", {})["image_url"] == "https://s3/a.png"
    assert shape(stored, "base64_list", {}) == ["https://s3/a.png"]


@pytest.mark.parametrize(
    "response", [name for name in get_args(ResponseFormat) if name != "images"]
)
def test_no_pictures_in_a_picture_shape_is_said(
    response: ResponseFormat,
) -> None:
    with pytest.raises(NoOutput) as caught:
        shape(result(), response, {})
    assert "ask for response 'images'" in str(caught.value)


def test_a1111s_lists_of_models_and_options() -> None:
    (model,) = model_list(["sub/model.safetensors"])
    assert (model["title"], model["model_name"]) == ("sub/model.safetensors", "sub/model")
    assert options_answer("m") == {
        "sd_model_checkpoint": "m",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
    }
