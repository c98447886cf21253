"""What a graph says of its parameters: what they are now, and what they take."""

from __future__ import annotations

import pytest

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.read import read
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import DEFS, ksampler, node, txt2img


def test_read_gives_back_what_was_filled() -> None:
    values = {
        "prompt": "x",
        "seed": 3,
        "steps": 7,
        "cfg": 2.5,
        "width": 64,
        "height": 128,
        "sampler": "heun",
    }
    graph = txt2img()
    result = fill(graph, find_roles(graph, DEFS), DEFS, values)
    assert values.items() <= read(result, find_roles(result, DEFS)).items()


def test_describe_lists_the_choices_of_the_node() -> None:
    graph = txt2img()
    described = describe(graph, find_roles(graph, DEFS), DEFS)
    assert described["scheduler"]["type"] == "string"
    assert "karras" in described["scheduler"]["enum"]
    assert described["prompt"] == {
        "type": "string",
        "default": "a lighthouse",
        "places": ["positive.text"],
    }
    assert described["seed"]["maximum"] == 2**64 - 1


def test_describe_lists_choices_in_the_newer_form() -> None:
    graph = txt2img(
        select=node("KSamplerSelect", sampler_name="euler"),
        sigmas=node(
            "BasicScheduler", model=["loader", 0], scheduler="simple", steps=20, denoise=1.0
        ),
        sampler=node(
            "SamplerCustom",
            model=["loader", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            sampler=["select", 0],
            sigmas=["sigmas", 0],
            add_noise=True,
            noise_seed=5,
            cfg=7.0,
        ),
    )
    schema = describe(graph, find_roles(graph, DEFS), DEFS)["sampler"]
    assert "heun" in schema["enum"]
    with pytest.raises(InvalidValue, match="sampler 'eular' is not one of the choices; use euler"):
        fill(graph, find_roles(graph, DEFS), DEFS, {"sampler": "eular"})


def test_describe_allows_what_every_place_allows() -> None:
    graph = txt2img(
        latent=node("EmptySD3LatentImage", width=512, height=512, batch_size=1),
        sampling=node(
            "ModelSamplingFlux",
            model=["loader", 0],
            width=512,
            height=512,
            max_shift=1.0,
            base_shift=0.5,
        ),
        sampler=ksampler(model=["sampling", 0]),
    )
    schema = describe(graph, find_roles(graph, DEFS), DEFS)["width"]
    assert (schema["multipleOf"], schema["places"]) == (16, ["latent.width", "sampling.width"])
