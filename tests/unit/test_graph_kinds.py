"""Graphs as strangers send them: which of several nodes is meant, and what a value does beside its own input."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.fill_notes import fill_notes
from comfy_worker.workflow.edit.read import read, seeds_of_outputs
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.roles.roles import Roles
from tests.core_nodes import OBJECT_INFO, changes, found, ksampler, node, second_stage, txt2img

INT: list[Any] = ["INT", {"min": 0, "max": 2**64 - 1}]
FLOAT: list[Any] = ["FLOAT", {"min": 0.0, "max": 100.0}]
TEXT: list[Any] = ["STRING", {"multiline": True}]


def declared(
    inputs: dict[str, list[Any]], outputs: list[str], names: list[str], **more: Any
) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": outputs, "output_name": names, **more}


NUMBERS = {"seed": INT, "steps": INT, "cfg": FLOAT, "denoise": ["FLOAT", {"min": 0.0, "max": 1.0}]}
DRIVEN = {"model": ["MODEL"], "positive": ["CONDITIONING"], "negative": ["CONDITIONING"]}
SIZES = ["custom", "1:1 square 1024x1024", "wide 128x64"]
SIZE = {"width": INT, "height": INT}
PIPE = ["PIPE_LINE"]
LOADER_INPUTS = {
    "ckpt_name": [["sd15.safetensors"]],
    "resolution": [["width x height (custom)", "512 x 512", "768 x 1024"]],
    "empty_latent_width": INT,
    "empty_latent_height": INT,
    "positive": TEXT,
    "negative": TEXT,
}
DEFS = NodeDefs(
    {
        **OBJECT_INFO,
        "FaceDetailer": declared(
            {"image": ["IMAGE"], **DRIVEN, **NUMBERS}, ["IMAGE", "MASK"], ["image", "mask"]
        ),
        "TiledUpscale": declared({"image": ["IMAGE"], **DRIVEN, **NUMBERS}, ["IMAGE"], ["image"]),
        "SizePreset": declared(
            {**SIZE, "aspect_ratio": [SIZES], "swap": [["Off", "On"]], "batch_size": INT},
            ["INT", "INT", "LATENT"],
            ["width", "height", "latent"],
        ),
        "FixedPreset": declared(
            {**SIZE, "ratio": [SIZES[1:]]}, ["INT", "INT"], ["width", "height"]
        ),
        "Scaled": declared({**SIZE, "factor": FLOAT}, ["INT", "INT"], ["width", "height"]),
        "PlainSize": declared({**SIZE, "batch_size": INT}, ["INT", "INT"], ["width", "height"]),
        "Captioner": declared(
            {"image": ["IMAGE"], "text_input": TEXT}, ["IMAGE", "STRING"], ["image", "caption"]
        ),
        "AskModel": declared({"question": TEXT, "temperature": FLOAT}, ["STRING"], ["text"]),
        "PipeLoader": declared(LOADER_INPUTS, ["PIPE_LINE", "MODEL"], ["pipe", "model"]),
        "PipeSettings": declared({"pipe": PIPE, **NUMBERS}, ["PIPE_LINE"], ["pipe"]),
        "PipeSampler": declared(
            {"pipe": PIPE}, ["PIPE_LINE", "IMAGE"], ["pipe", "image"], output_node=True
        ),
        "Words": declared({"positive": TEXT}, ["STRING"], ["positive"]),
    }
)


def roles_of(graph: Workflow) -> Roles:
    return find_roles(graph, DEFS)


def filled(graph: Workflow, **values: Any) -> dict[str, Any]:
    return changes(graph, fill(graph, roles_of(graph), DEFS, values))


def left(roles: Roles, name: str) -> list[str]:
    return [str(candidate.node_input) for candidate in roles.unassigned.get(name, ())]


def retouch(class_type: str = "FaceDetailer", **changed: Any) -> dict[str, Any]:
    links = {"model": ["loader", 0], "positive": ["positive", 0], "negative": ["negative", 0]}
    numbers = {"seed": 3, "steps": 1, "cfg": 4.0, "denoise": 0.35}
    return node(class_type, **{**links, **numbers, "image": ["decode", 0], **changed})


@pytest.mark.parametrize("class_type", ["FaceDetailer", "TiledUpscale"])
def test_a_retouch_keeps_its_own_numbers(class_type: str) -> None:
    graph = txt2img(
        retouch=retouch(class_type),
        save=node("SaveImage", images=["retouch", 0], filename_prefix="x"),
    )
    result = filled(graph, steps=30, cfg=6.0, denoise=0.8, seed=9)
    assert result == {
        "sampler.steps": 30,
        "sampler.cfg": 6.0,
        "sampler.denoise": 0.8,
        "sampler.seed": 9,
    }
    roles = roles_of(graph)
    assert left(roles, "denoise") == ["retouch.denoise"]
    assert [sampler.node_id for sampler in roles.samplers] == ["sampler", "retouch"]


def test_a_retouch_alone_takes_every_number() -> None:
    graph = txt2img(
        image=node("LoadImage", image="a.png"),
        retouch=retouch(image=["image", 0]),
        save=node("SaveImage", images=["retouch", 0], filename_prefix="x"),
    )
    del graph["sampler"], graph["decode"], graph["latent"]
    assert filled(graph, steps=30, denoise=0.8) == {"retouch.steps": 30, "retouch.denoise": 0.8}


def test_a_sampler_that_makes_masks_is_a_tool() -> None:
    graph = txt2img(
        image=node("LoadImage", image="a.png"),
        tool=retouch(image=["image", 0]),
        masked=node("SetLatentNoiseMask", samples=["latent", 0], mask=["tool", 1]),
        sampler=ksampler(latent_image=["masked", 0]),
    )
    assert filled(graph, steps=30) == {"sampler.steps": 30}
    assert "steps" not in roles_of(graph).unassigned


def test_a_retouch_with_its_own_text_keeps_it() -> None:
    graph = txt2img(
        face=node("CLIPTextEncode", clip=["loader", 1], text="a face"),
        retouch=retouch(positive=["face", 0]),
        save=node("SaveImage", images=["retouch", 0], filename_prefix="x"),
    )
    assert filled(graph, prompt="a cat") == {"positive.text": "a cat"}
    assert left(roles_of(graph), "prompt") == ["face.text"]


def two_stages(first: int, second: int) -> Workflow:
    return txt2img(
        sampler=ksampler(steps=first),
        second=second_stage(steps=second, cfg=4.0),
        decode=node("VAEDecode", samples=["second", 0], vae=["loader", 2]),
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (20, 10, {"sampler.steps": 30, "second.steps": 15}),
        (1, 20, {"second.steps": 30, "sampler.steps": 2}),
        (4, 4, {"sampler.steps": 30, "second.steps": 30}),
    ],
)
def test_a_first_stage_of_few_steps_leads_none(
    first: int, second: int, expected: dict[str, int]
) -> None:
    assert filled(two_stages(first, second), steps=30) == expected


def test_a_value_that_did_more_is_told() -> None:
    graph = two_stages(20, 10)
    roles = roles_of(graph)
    values = {"steps": 30, "cfg": 6.0, "sampler": "heun"}
    sentences = fill_notes(graph, fill(graph, roles, DEFS, values), roles, values)
    assert sentences == [
        "steps are those of sampler.steps; in proportion second.steps has 15",
        "cfg went to each of sampler.cfg (7.0), second.cfg (4.0), which had different values",
    ]


def side_by_side(*seeds: Any) -> Workflow:
    graph = txt2img(sampler=ksampler(seed=seeds[0]))
    for number, seed in enumerate(seeds[1:]):
        graph |= {
            f"sampler{number}": ksampler(seed=seed),
            f"decode{number}": node(
                "VAEDecode", samples=[f"sampler{number}", 0], vae=["loader", 2]
            ),
            f"save{number}": node("SaveImage", images=[f"decode{number}", 0], filename_prefix="x"),
        }
    return graph


@pytest.mark.parametrize(
    ("seeds", "seed", "expected"),
    [
        ((5, 1000, 1001), 7, [7, 1002, 1003]),
        ((5, 3), 0, [0, 2**64 - 2]),
        ((5, 5), 9, [9, 9]),
        (("5", "8"), 9, [9, 12]),
        (("%seed%", 8), 9, [9, 8]),
    ],
)
def test_seeds_side_by_side_keep_their_distance(
    seeds: tuple[Any, ...], seed: int, expected: list[int]
) -> None:
    graph = side_by_side(*seeds)
    roles = roles_of(graph)
    result = fill(graph, roles, DEFS, {"seed": seed})
    samplers = ["sampler", *(f"sampler{number}" for number in range(len(seeds) - 1))]
    assert [result[node_id]["inputs"]["seed"] for node_id in samplers] == expected


def test_each_output_has_the_seed_of_its_sampler() -> None:
    graph = side_by_side(5, 1000)
    assert seeds_of_outputs(graph, roles_of(graph)) == {"save": 5, "save0": 1000}
    chained = two_stages(20, 10)
    assert seeds_of_outputs(chained, roles_of(chained)) == {"save": 5}


def sized(class_type: str, **inputs: Any) -> Workflow:
    return txt2img(
        size=node(class_type, width=1024, height=1024, **inputs),
        latent=node("EmptyLatentImage", width=["size", 0], height=["size", 1], batch_size=1),
    )


def test_a_preset_is_set_to_its_free_choice() -> None:
    graph = sized("SizePreset", aspect_ratio="wide 128x64", swap="Off", batch_size=1)
    roles = roles_of(graph)
    assert {name: read(graph, roles)[name] for name in ("width", "height")} == {
        "width": 128,
        "height": 64,
    }
    assert filled(graph, width=512) == {
        "size.width": 512,
        "size.height": 64,
        "size.aspect_ratio": "custom",
    }
    result = fill(graph, roles, DEFS, {"width": 512, "height": 256})
    assert {name: read(result, roles)[name] for name in ("width", "height")} == {
        "width": 512,
        "height": 256,
    }


def test_a_preset_at_its_free_choice_stays() -> None:
    graph = sized("SizePreset", aspect_ratio="custom", swap="Off", batch_size=1)
    assert filled(graph, width=512) == {"size.width": 512}


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("SizePreset", {"aspect_ratio": "custom", "swap": "On", "batch_size": 1}),
        ("FixedPreset", {"ratio": "wide 128x64"}),
        ("Scaled", {"factor": 2.0}),
    ],
)
def test_a_computed_size_is_bypassed(class_type: str, inputs: dict[str, Any]) -> None:
    graph = sized(class_type, **inputs)
    assert "width" not in read(graph, roles_of(graph))
    assert filled(graph, width=512) == {"latent.width": 512}


def test_a_linked_preset_is_read_as_its_literal() -> None:
    graph = sized("SizePreset", aspect_ratio=["text", 0], swap="Off", batch_size=1)
    graph["text"] = node("PrimitiveString", value="custom")
    assert filled(graph, width=512) == {"size.width": 512}
    graph["text"] = node("PrimitiveString", value="wide 128x64")
    assert filled(graph, width=512) == {"latent.width": 512}


def test_a_plain_size_node_passes_its_size() -> None:
    assert filled(sized("PlainSize", batch_size=1), width=512) == {"size.width": 512}


@pytest.mark.parametrize(
    "writer",
    [
        node("Captioner", image=["image", 0], text_input="describe"),
        node("AskModel", question="what is this?", temperature=0.5),
    ],
)
def test_a_question_is_no_prompt(writer: dict[str, Any]) -> None:
    slot = 1 if writer["class_type"] == "Captioner" else 0
    graph = txt2img(
        image=node("LoadImage", image="a.png"),
        writer=writer,
        positive=node("CLIPTextEncode", clip=["loader", 1], text=["writer", slot]),
    )
    assert found(roles_of(graph), "prompt") is None
    assert found(roles_of(graph), "negative_prompt") == ["negative.text"]


def test_a_bundle_carries_text_numbers_and_model() -> None:
    graph = {
        "text": node("Words", positive="a girl"),
        "loader": node(
            "PipeLoader",
            ckpt_name="sd15.safetensors",
            resolution="768 x 1024",
            empty_latent_width=512,
            empty_latent_height=512,
            positive=["text", 0],
            negative="bad",
        ),
        "settings": node(
            "PipeSettings", pipe=["loader", 0], seed=3, steps=25, cfg=5.5, denoise=1.0
        ),
        "sampler": node("PipeSampler", pipe=["settings", 0]),
    }
    roles = roles_of(graph)
    assert {name: read(graph, roles)[name] for name in ("checkpoint", "width", "height")} == {
        "checkpoint": "sd15.safetensors",
        "width": 768,
        "height": 1024,
    }
    values = {
        "prompt": "an owl",
        "negative_prompt": "ugly",
        "seed": 9,
        "steps": 4,
        "cfg": 6.0,
        "width": 640,
    }
    assert filled(graph, **values) == {
        "text.positive": "an owl",
        "loader.negative": "ugly",
        "settings.seed": 9,
        "settings.steps": 4,
        "settings.cfg": 6.0,
        "loader.empty_latent_width": 640,
        "loader.empty_latent_height": 1024,
        "loader.resolution": "width x height (custom)",
    }


@pytest.mark.parametrize(
    "steps", ["2", " 2 ", "2.0", "%steps%", "many", {"a": 1}, ["loader", False], None, True]
)
def test_steps_of_any_form_are_filled(steps: Any) -> None:
    graph = two_stages(20, 10)
    graph["sampler"]["inputs"]["steps"] = steps
    roles = roles_of(graph)
    result = fill(graph, roles, DEFS, {"steps": 8, "seed": 1})
    assert result["second"]["inputs"]["steps"] > 0
    if "steps" in roles.inputs:
        assert read(result, roles, before=graph)["steps"] == 8


def test_placeholders_are_the_places_of_their_parameters() -> None:
    graph = txt2img(
        positive=node("CLIPTextEncode", clip=["loader", 1], text="masterpiece, %prompt%, sharp"),
        latent=node("EmptyLatentImage", width="%width%", height="%height%", batch_size=1),
        sampler=ksampler(steps="%steps%", cfg="%scale%", seed="%seed%"),
        save=node("SaveImage", images=["decode", 0], filename_prefix="%width%"),
    )
    assert filled(graph, prompt="a %cat%", width=512, height=256, steps=4, cfg=3.0, seed=1) == {
        "positive.text": "masterpiece, a %cat%, sharp",
        "latent.width": 512,
        "latent.height": 256,
        "sampler.steps": 4,
        "sampler.cfg": 3.0,
        "sampler.seed": 1,
    }


def test_numbers_in_text_are_read_as_numbers() -> None:
    graph = txt2img(sampler=ksampler(steps="12", seed="77", cfg="6.5"))
    values = read(graph, roles_of(graph))
    assert (values["steps"], values["seed"], values["cfg"]) == (12, 77, 6.5)
