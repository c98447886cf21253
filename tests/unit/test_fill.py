"""Values into their places: what changes with them, what is refused, and what the graph then says of itself."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from comfy_worker.errors import (
    Ambiguous,
    InputError,
    InvalidInput,
    InvalidValue,
    ModelNotFound,
    NoPlace,
)
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.read import read
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import DEFS, changes, ksampler, node, txt2img


@dataclass(frozen=True)
class Entry:
    node: str
    input: str
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None


def filled(graph: Workflow, declared: dict[str, Entry] | None = None, **values: Any) -> Workflow:
    before = copy.deepcopy(graph)
    result = fill(graph, find_roles(graph, DEFS), DEFS, values, declared)
    assert graph == before
    return result


def two_stages(steps: int = 20, cut: Any = 12) -> Workflow:
    stage = {"noise_seed": 5, "steps": steps, "return_with_leftover_noise": "enable"}
    first = ksampler(**stage, add_noise="enable", start_at_step=0, end_at_step=cut)
    last = ksampler(
        **stage,
        add_noise="disable",
        start_at_step=cut,
        end_at_step=10000,
        latent_image=["sampler", 0],
    )
    for sampler in (first, last):
        sampler["class_type"] = "KSamplerAdvanced"
        del sampler["inputs"]["seed"], sampler["inputs"]["denoise"]
    return txt2img(
        sampler=first, last=last, decode=node("VAEDecode", samples=["last", 0], vae=["loader", 2])
    )


def test_each_value_changes_only_its_own_input() -> None:
    graph = txt2img()
    result = filled(
        graph,
        prompt="a cat",
        negative_prompt="",
        seed=2**64 - 1,
        steps=4,
        cfg=1,
        sampler="heun",
        scheduler="karras",
        denoise=0.5,
        width=768,
        height=256,
        batch_size=2,
        checkpoint="sdxl",
    )
    assert changes(graph, result) == {
        "positive.text": "a cat",
        "negative.text": "",
        "sampler.seed": 2**64 - 1,
        "sampler.steps": 4,
        "sampler.cfg": 1,
        "sampler.sampler_name": "heun",
        "sampler.scheduler": "karras",
        "sampler.denoise": 0.5,
        "latent.width": 768,
        "latent.height": 256,
        "latent.batch_size": 2,
        "loader.ckpt_name": "sub/sdxl.safetensors",
    }


@pytest.mark.parametrize(("word", "other"), [("cfg", "guidance"), ("guidance", "cfg")])
def test_cfg_and_guidance_both_set_the_only_input(word: str, other: str) -> None:
    plain = txt2img()
    assert changes(plain, filled(plain, **{word: 3.0})) == {"sampler.cfg": 3.0}
    flux = txt2img(
        guide=node("FluxGuidance", conditioning=["positive", 0], guidance=3.5),
        sampler=ksampler(positive=["guide", 0]),
    )
    assert changes(flux, filled(flux, cfg=2.0, guidance=4.0)) == {
        "sampler.cfg": 2.0,
        "guide.guidance": 4.0,
    }


def test_a_requested_hand_over_step_is_kept() -> None:
    declared = {
        "base_end": Entry("sampler", "end_at_step"),
        "refiner_steps": Entry("last", "steps"),
    }
    result = filled(two_stages(), declared, steps=10, base_end=9, refiner_steps=30)
    assert [result[node_id]["inputs"]["steps"] for node_id in ("sampler", "last")] == [10, 30]
    assert result["sampler"]["inputs"]["end_at_step"] == 9


@pytest.mark.parametrize(
    ("steps", "cut", "new", "moved"),
    [
        (20, 12, 10, 6),
        (20, 12, 5, 3),
        (4, 2, 20, 10),
        (20, 12, 1, 1),
        (20, 1, 4, 1),
        (20, 19, 4, 3),
        (20, 20, 7, 7),
    ],
)
def test_stages_hand_over_at_the_same_step_ratio(
    steps: int, cut: int, new: int, moved: int
) -> None:
    result = filled(two_stages(steps, cut), steps=new)
    assert [result[node_id]["inputs"]["steps"] for node_id in ("sampler", "last")] == [new, new]
    assert result["sampler"]["inputs"]["start_at_step"] == 0
    assert result["sampler"]["inputs"]["end_at_step"] == moved
    assert result["last"]["inputs"]["start_at_step"] == moved
    assert result["last"]["inputs"]["end_at_step"] == 10000


def test_a_split_step_in_a_primitive_moves_once() -> None:
    graph = two_stages(20, ["cut", 0]) | {"cut": node("PrimitiveInt", value=10)}
    assert changes(graph, filled(graph, steps=8)) == {
        "sampler.steps": 8,
        "last.steps": 8,
        "cut.value": 4,
    }


def test_a_cut_of_sigmas_moves_with_the_steps() -> None:
    graph = txt2img(
        sigmas=node(
            "BasicScheduler", model=["loader", 0], scheduler="normal", steps=20, denoise=1.0
        ),
        split=node("SplitSigmas", sigmas=["sigmas", 0], step=5),
        select=node("KSamplerSelect", sampler_name="euler"),
        sampler=node(
            "SamplerCustom",
            model=["loader", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            sampler=["select", 0],
            sigmas=["split", 1],
            latent_image=["latent", 0],
            add_noise=True,
            noise_seed=1,
            cfg=4.0,
        ),
    )
    assert changes(graph, filled(graph, steps=8)) == {"sigmas.steps": 8, "split.step": 2}


def hires(upscale: dict[str, Any]) -> Workflow:
    return txt2img(
        upscale=upscale,
        second=ksampler(latent_image=["upscale", 0], denoise=0.5),
        decode=node("VAEDecode", samples=["second", 0], vae=["loader", 2]),
    )


def test_later_resize_targets_scale_with_the_size() -> None:
    graph = hires(node("LatentUpscale", samples=["sampler", 0], width=768, height=1024))
    assert changes(graph, filled(graph, width=1024)) == {
        "latent.width": 1024,
        "upscale.width": 1536,
    }
    assert changes(graph, filled(graph, height=520)) == {
        "latent.height": 520,
        "upscale.height": 1040,
    }
    free = hires(node("LatentUpscale", samples=["sampler", 0], width=0, height=1024))
    assert changes(free, filled(free, width=1024)) == {"latent.width": 1024}


def test_an_image_resized_before_the_sampler_is_unchanged() -> None:
    graph = txt2img(
        image=node("LoadImage", image="a.png"),
        scale=node(
            "ImageScale",
            image=["image", 0],
            width=512,
            height=512,
            upscale_method="bilinear",
            crop="center",
        ),
        apply=node(
            "ControlNetApplyAdvanced",
            positive=["positive", 0],
            negative=["negative", 0],
            image=["scale", 0],
        ),
        sampler=ksampler(positive=["apply", 0], negative=["apply", 1]),
    )
    assert changes(graph, filled(graph, width=1024)) == {"latent.width": 1024}


def test_clip_skip_counts_layers_from_the_end() -> None:
    graph = txt2img(
        skip=node("CLIPSetLastLayer", clip=["loader", 1], stop_at_clip_layer=-1),
        positive=node("CLIPTextEncode", clip=["skip", 0], text="x"),
    )
    result = filled(graph, clip_skip=2)
    assert changes(graph, result) == {"skip.stop_at_clip_layer": -2}
    assert read(result, find_roles(result, DEFS))["clip_skip"] == 2
    schema = describe(graph, find_roles(graph, DEFS), DEFS)["clip_skip"]
    assert (schema["minimum"], schema["maximum"], schema["default"]) == (1, 24, 1)
    with pytest.raises(InvalidValue, match="clip_skip must be at least 1 and at most 24"):
        filled(graph, clip_skip=0)


def test_an_image_and_mask_are_set_by_filename() -> None:
    graph = txt2img(
        image=node("LoadImage", image="example.png"),
        mask=node("LoadImageMask", image="example.png", channel="red"),
        latent=node(
            "VAEEncodeForInpaint",
            pixels=["image", 0],
            mask=["mask", 0],
            vae=["loader", 2],
            grow_mask_by=6,
        ),
    )
    assert changes(graph, filled(graph, image="job/a.png", mask="job/m.png")) == {
        "image.image": "job/a.png",
        "mask.image": "job/m.png",
    }


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"steps": "many"}, InvalidInput, "steps must be of type integer, not 'many'"),
        ({"steps": True}, InvalidInput, "steps must be of type integer, not True"),
        ({"steps": 2.5}, InvalidInput, "steps must be of type integer, not 2.5"),
        ({"cfg": None}, InvalidInput, "cfg must be of type number, not null"),
        ({"prompt": 3}, InvalidInput, "prompt must be text, not 3"),
        ({"steps": 0}, InvalidValue, "steps must be at least 1 and at most 10000, not 0; use 1"),
        (
            {"cfg": float("nan")},
            InvalidValue,
            "cfg must be at least 0.0 and at most 100.0, not nan",
        ),
        (
            {"width": 513},
            InvalidValue,
            "width must be at least 16 and at most 16384, in steps of 8, not 513; use 512 or 520",
        ),
        (
            {"width": 16385},
            InvalidValue,
            "width must be at least 16 and at most 16384, in steps of 8, not 16385; use 16384",
        ),
        (
            {"width": 7},
            InvalidValue,
            "width must be at least 16 and at most 16384, in steps of 8, not 7; use 16",
        ),
        (
            {"sampler": "eular"},
            InvalidValue,
            "sampler 'eular' is not one of the choices; use euler",
        ),
        (
            {"scheduler": "zzz"},
            InvalidValue,
            "scheduler 'zzz' is not one of the choices; use simple or",
        ),
        ({"sampler": 3}, InvalidValue, "sampler 3 is not one of the choices"),
        ({"checkpoint": "nothing"}, ModelNotFound, "checkpoint 'nothing' is not installed"),
        (
            {"length": 9},
            NoPlace,
            "this workflow has no input for length; it has batch_size, cfg, checkpoint",
        ),
        ({"nonsense": 9}, NoPlace, "this workflow has no input for nonsense"),
    ],
)
def test_a_value_that_cannot_be_filled_is_refused(
    values: dict[str, Any], error: type[InputError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        filled(txt2img(), **values)
    assert caught.value.sentence.startswith(sentence)
    assert caught.value.details


def test_an_integer_may_be_written_as_a_float() -> None:
    result = filled(txt2img(), steps=4.0)
    assert result["sampler"]["inputs"]["steps"] == 4
    assert isinstance(result["sampler"]["inputs"]["steps"], int)


@pytest.mark.parametrize(
    ("class_type", "good", "bad", "nearest"),
    [("EmptyHunyuanLatentVideo", 81, 80, [77, 81]), ("EmptyMochiLatentVideo", 13, 8, [7, 13])],
)
def test_steps_are_counted_from_the_smallest_value(
    class_type: str, good: int, bad: int, nearest: list[int]
) -> None:
    graph = txt2img(latent=node(class_type, width=64, height=64, length=25, batch_size=1))
    assert filled(graph, length=good)["latent"]["inputs"]["length"] == good
    with pytest.raises(InvalidValue) as caught:
        filled(graph, length=bad)
    assert caught.value.details[0]["nearest"] == nearest


def test_a_primitive_value_must_suit_every_reached_node() -> None:
    graph = txt2img(
        latent=node("EmptyLatentImage", width=["number", 0], height=512, batch_size=1),
        number=node("PrimitiveInt", value=512),
    )
    with pytest.raises(InvalidValue, match="steps of 8"):
        filled(graph, width=513)
    schema = describe(graph, find_roles(graph, DEFS), DEFS)["width"]
    assert schema == {
        "type": "integer",
        "minimum": 16,
        "maximum": 16384,
        "multipleOf": 8,
        "default": 512,
        "places": ["number.value"],
    }


def test_only_a_requested_ambiguous_parameter_is_refused() -> None:
    graph = txt2img(
        sky=node("CLIPTextEncode", "Sky", clip=["loader", 1], text="sky"),
        both=node("ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["sky", 0]),
        sampler=ksampler(positive=["both", 0]),
    )
    assert changes(graph, filled(graph, steps=3)) == {"sampler.steps": 3}
    with pytest.raises(Ambiguous, match="give one of these nodes the title 'prompt'") as caught:
        filled(graph, prompt="a cat")
    assert caught.value.details[1] == {
        "key": "prompt",
        "node_id": "sky",
        "input": "text",
        "title": "Sky",
        "class_type": "CLIPTextEncode",
        "value": "sky",
    }


def test_a_declared_parameter_wins_and_narrows_the_range() -> None:
    graph = hires(
        node(
            "LatentUpscaleBy", samples=["sampler", 0], upscale_method="nearest-exact", scale_by=1.5
        )
    )
    declared = {
        "scale": Entry("upscale", "scale_by", default=2.0, minimum=1.0, maximum=4.0),
        "denoise": Entry("sampler", "denoise"),
    }
    assert changes(graph, filled(graph, declared, scale=3, denoise=0.9)) == {
        "upscale.scale_by": 3,
        "sampler.denoise": 0.9,
    }
    with pytest.raises(InvalidValue, match="scale must be at least"):
        filled(graph, declared, scale=5)
    roles = find_roles(graph, DEFS)
    schema = describe(graph, roles, DEFS, declared)["scale"]
    assert (schema["default"], schema["minimum"], schema["places"]) == (
        2.0,
        1.0,
        ["upscale.scale_by"],
    )
    assert read(graph, roles, declared)["scale"] == 1.5


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("integer", "20", 20),
        ("integer", " 20.0 ", 20),
        ("number", "0.5", 0.5),
        ("number", "-1e-2", -0.01),
        ("integer", str(2**64 - 1), 2**64 - 1),
    ],
)
def test_numbers_may_be_texts(type_: str, text: str, value: float) -> None:
    limits = InputConstraint(type=type_)
    accepted = limits.checked("x", text)
    assert accepted == value
    assert type(accepted) is type(value)


@pytest.mark.parametrize("text", ["", "2.5", "1_000", "nan", "0x10", "true", "1" * 50])
def test_other_texts_are_no_numbers(text: str) -> None:
    with pytest.raises(InvalidInput, match="x must be of type integer, not"):
        InputConstraint(type="integer").checked("x", text)


def test_an_uninstalled_class_is_filled_by_general_rules() -> None:
    graph, nothing = txt2img(), NodeDefs({})
    roles = find_roles(graph, nothing)
    assert changes(graph, fill(graph, roles, nothing, {"steps": 4, "prompt": "x"})) == {
        "sampler.steps": 4,
        "positive.text": "x",
    }
    with pytest.raises(InvalidInput, match="steps must be of type integer"):
        fill(graph, roles, nothing, {"steps": "many"})


def test_model_names_may_omit_folder_and_extension() -> None:
    limits = InputConstraint(choices=("sub/upscaler-2x.pth", "other.pth"))
    assert limits.checked("upscale_model", "Upscaler-2x") == "sub/upscaler-2x.pth"
    with pytest.raises(
        ModelNotFound, match="'upscaler-4x' is not installed: name a file that is there"
    ) as caught:
        limits.checked("upscale_model", "upscaler-4x")
    assert caught.value.details[0]["nearest"] == ["sub/upscaler-2x.pth"]
