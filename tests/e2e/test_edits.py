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


def pixels(worker: Client, job_input: dict[str, Any]) -> bytes:
    (picture,) = pictures(worker.output(job_input))
    return picture.tobytes()


def test_lora_keys_and_tags_are_equal(worker: Client) -> None:
    plain = pixels(worker, SMALL)
    by_key = pixels(worker, {**SMALL, "loras": [{"name": "lora-a", "strength": 0.7}]})
    by_tag = pixels(worker, {**SMALL, "prompt": "a lighthouse <lora:lora-a:0.7>"})
    assert plain != by_key == by_tag


def test_a_tag_leaves_the_prompt(worker: Client) -> None:
    result = worker.output({**SMALL, "prompt": "a lighthouse, <lora:lora-a:0.7>, at night"})
    assert result["parameters"]["prompt"] == "a lighthouse, at night"


def test_templates_and_custom_graphs_take_controlnets(worker: Client) -> None:
    control = {"controlnets": [{"type": "canny", "image": encoded(drawing()), "strength": 0.9}]}
    custom = {"workflow": txt2img(), "prompt": "a lighthouse", "seed": 1}
    assert pixels(worker, {**SMALL, **control}) != pixels(worker, SMALL)
    assert pixels(worker, {**custom, **control}) != pixels(worker, custom)


def test_a_lora_of_another_family_is_refused(worker: Client) -> None:
    job = worker.runsync({**SMALL, "loras": [{"name": placeholders.LORA_SDXL}]})
    assert job["error"] == (
        f"MODEL_MISMATCH: {placeholders.LORA_SDXL} is made for SDXL, but the workflow's model is SD 1.5; "
        "use one that is made for SD 1.5"
    )


def test_inpainting_changes_only_the_masked_area(worker: Client) -> None:
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


def test_its_own_size_leaves_a_picture_alone(worker: Client) -> None:
    gradient = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    small = {"prompt": "a lighthouse", "steps": 2, "seed": 1, "image": encoded(gradient)}
    same = {**small, "width": 64, "height": 64}
    assert pixels(worker, same) == pixels(worker, small)
    assert worker.output(same)["parameters"]["width"] == 64
    assert pixels(worker, {**same, "width": 128}) != pixels(worker, small)


def test_an_override_reaches_any_input(worker: Client) -> None:
    by_override = pixels(
        worker, {"workflow": txt2img(), "seed": 1, "overrides": {"sampler.steps": 3}}
    )
    assert by_override == pixels(worker, {"workflow": txt2img(), "seed": 1, "steps": 3})


def test_an_override_counts_more_than_a_parameter(worker: Client) -> None:
    result = worker.output(
        {"workflow": txt2img(), "seed": 1, "steps": 5, "overrides": {"sampler.steps": 3}}
    )
    assert result["parameters"]["steps"] == 3


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"loras": [{"name": "nope"}]}, "MODEL_NOT_FOUND: lora 'nope' is not installed"),
        (
            {"loras": [{"name": "lora-a", "strength": 200}]},
            "INVALID_INPUT: loras.0.strength must be less than",
        ),
        ({"prompt": "<lora:lora-a:much>"}, "INVALID_VALUE: prompt has the tag"),
        ({"overrides": {"99.steps": 3}}, "NO_PLACE: overrides '99.steps'"),
        (
            {"controlnets": [{"type": "canny", "image": "?"}]},
            "INVALID_MEDIA: controlnets.0.image must be base64",
        ),
        (
            {"controlnets": [{"type": "depth", "image": encoded(drawing()), "preprocess": True}]},
            "NODE_NOT_INSTALLED: controlnets preprocess for type 'depth' needs the node pack comfyui_controlnet",
        ),
        ({"clip_skip": 25}, "INVALID_INPUT: clip_skip must be less than or equal to 24"),
    ],
)
def test_what_cannot_be_edited_in_is_told(
    worker: Client, changes: dict[str, Any], error: str
) -> None:
    job = worker.runsync({**SMALL, **changes})
    assert job["status"] == "FAILED"
    assert job["error"].startswith(error)


def test_a_custom_graph_keeps_its_own_seed(worker: Client) -> None:
    first, again = (worker.output({"workflow": txt2img(seed=5)}) for _ in range(2))
    assert (first["seed"], first["images"][0]["seed"], first["parameters"]["seed"]) == (5, 5, 5)
    assert pictures(first)[0].tobytes() == pictures(again)[0].tobytes()
    drawn = worker.output({"workflow": txt2img(seed=5), "seed": -1})
    assert drawn["seed"] not in (5, -1)
    assert drawn["images"][0]["seed"] == drawn["seed"]


@pytest.mark.parametrize(("changes", "seeds"), [({}, [5, 1000]), ({"seed": 7}, [7, 1002])])
def test_samplers_side_by_side_keep_their_seeds(
    worker: Client, changes: dict[str, int], seeds: list[int]
) -> None:
    graph = txt2img(seed=5)
    graph["sampler2"] = {**graph["sampler"], "inputs": {**graph["sampler"]["inputs"], "seed": 1000}}
    graph["decode2"] = {
        **graph["decode"],
        "inputs": {**graph["decode"]["inputs"], "samples": ["sampler2", 0]},
    }
    graph["save2"] = {
        **graph["save"],
        "inputs": {**graph["save"]["inputs"], "images": ["decode2", 0]},
    }
    result = worker.output({"workflow": graph, **changes})
    assert {image["node_id"]: image["seed"] for image in result["images"]} == {
        "save": seeds[0],
        "save2": seeds[1],
    }
    assert result["seed"] == seeds[0]
    assert len({picture.tobytes() for picture in pictures(result)}) == 2


def test_text_where_a_number_is_meant(worker: Client) -> None:
    text = txt2img(seed=5, sampler={"steps": "2", "cfg": "%scale%"})
    plain = worker.output({"workflow": txt2img(seed=5), "steps": 3, "cfg": 6.0})
    result = worker.output({"workflow": text, "steps": 3, "cfg": 6.0})
    assert pictures(result)[0].tobytes() == pictures(plain)[0].tobytes()
    assert (result["parameters"]["steps"], result["parameters"]["cfg"]) == (3, 6.0)


@pytest.mark.parametrize(
    "job_input",
    [
        {"workflow": txt2img(latent={"batch_size": 64})},
        {"workflow": txt2img(), "overrides": {"latent.batch_size": 64}},
        {"prompt": "a fox", "parameters": {"batch_size": 64}},
    ],
)
def test_no_way_leads_around_max_batch_size(worker: Client, job_input: dict[str, Any]) -> None:
    job = worker.runsync(job_input)
    assert job["error"].startswith("INVALID_VALUE")
    assert "must be at most 4, not 64: the endpoint's setting MAX_BATCH_SIZE" in job["error"]


def test_a_broken_link_is_told_before_no_place(worker: Client) -> None:
    graph = txt2img(sampler={"positive": ["gone", 0]})
    for options in ({}, {"validate_only": True}):
        job = worker.runsync({"workflow": graph, "prompt": "a fox", **options})
        assert "positive is linked to node 'gone'" in job["error"]
