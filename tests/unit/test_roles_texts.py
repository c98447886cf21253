"""Which texts are the prompt: each rule on a graph of its own."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import DEFS, found, found_in, ksampler, node, second_stage, txt2img


def test_a_node_with_both_conditionings_separates_them() -> None:
    both = node(
        "InpaintModelConditioning",
        positive=["positive", 0],
        negative=["negative", 0],
        pixels=["image", 0],
    )
    swapped = txt2img(both=both, sampler=ksampler(positive=["both", 1], negative=["both", 0]))
    assert found_in(swapped, "prompt") == ["negative.text"]
    assert found_in(swapped, "negative_prompt") == ["positive.text"]


def test_a_zeroed_prompt_is_no_negative_prompt() -> None:
    zero = node("ConditioningZeroOut", conditioning=["positive", 0])
    assert (
        found_in(txt2img(zero=zero, sampler=ksampler(negative=["zero", 0])), "negative_prompt")
        is None
    )


def test_the_prompts_own_encoder_is_no_negative_prompt() -> None:
    graph = txt2img(sampler=ksampler(negative=["positive", 0]))
    assert found_in(graph, "negative_prompt") is None
    assert found_in(graph, "prompt") == ["positive.text"]


def test_a_text_of_both_sides_is_separated() -> None:
    graph = txt2img(text=node("PrimitiveStringMultiline", value="a"))
    for side in ("positive", "negative"):
        graph[side]["inputs"]["text"] = ["text", 0]
    assert found_in(graph, "prompt") == ["positive.text"]
    assert found_in(graph, "negative_prompt") == ["negative.text"]
    graph["both"] = node("StringConcatenate", string_a=["text", 0], string_b="b", delimiter="")
    graph["positive"]["inputs"]["text"] = ["both", 0]
    assert found_in(graph, "negative_prompt") is None


def test_text_is_set_where_it_lies() -> None:
    graph = txt2img(
        positive=node("CLIPTextEncode", clip=["loader", 1], text=["text", 0]),
        text=node("PrimitiveStringMultiline", value="a lighthouse"),
    )
    assert found_in(graph, "prompt") == ["text.value"]


@pytest.mark.parametrize(
    ("half", "expected"),
    [
        ("", ["positive.text"]),
        ("You are an assistant. <Prompt Start> ", ["positive.text"]),
        ("in the style of ink, ", "ambiguous"),
    ],
)
def test_the_prompt_part_of_concatenated_text_counts(half: str, expected: list[str] | str) -> None:
    graph = txt2img(
        encoder=node("CLIPTextEncode", clip=["loader", 1], text=["both", 0]),
        both=node("StringConcatenate", string_a=half, string_b=["text", 0], delimiter=", "),
        text=node("PrimitiveStringMultiline", value="a lighthouse"),
        sampler=ksampler(positive=["encoder", 0]),
    )
    expected = ["text.value"] if isinstance(expected, list) else expected
    assert found_in(graph, "prompt") == expected


def test_an_instruction_counts_before_a_copied_title() -> None:
    graph = txt2img(
        encoder=node("CLIPTextEncode", clip=["loader", 1], text=["both", 0]),
        both=node("StringConcatenate", string_a=["system", 0], string_b=["text", 0], delimiter=""),
        system=node("PrimitiveStringMultiline", value="You are an assistant. <Prompt Start> "),
        text=node("PrimitiveStringMultiline", value="a lighthouse"),
        sampler=ksampler(positive=["encoder", 0]),
    )
    for node_id in ("system", "text"):
        graph[node_id]["_meta"] = {"title": "System prompt"}
    assert found_in(graph, "prompt") == ["text.value"]


def test_all_texts_of_an_encoder_are_prompts() -> None:
    encoder = node(
        "CLIPTextEncodeFlux", clip=["loader", 1], clip_l="light", t5xxl="a lighthouse", guidance=3.5
    )
    graph = txt2img(positive=encoder)
    assert found_in(graph, "prompt") == ["positive.clip_l", "positive.t5xxl"]
    assert found_in(graph, "guidance") == ["positive.guidance"]


def test_lyrics_are_no_prompt() -> None:
    encoder = node(
        "TextEncodeAceStepAudio", clip=["loader", 1], tags="jazz", lyrics="la", lyrics_strength=1.0
    )
    assert found_in(txt2img(positive=encoder), "prompt") == ["positive.tags"]


def test_a_title_decides_between_combined_texts() -> None:
    sky = node("CLIPTextEncode", clip=["loader", 1], text="sky")
    area = node(
        "ConditioningSetArea",
        conditioning=["sky", 0],
        width=512,
        height=256,
        x=0,
        y=0,
        strength=1.0,
    )
    combined = node(
        "ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["area", 0]
    )
    graph = txt2img(
        sky=sky, area=area, combined=combined, sampler=ksampler(positive=["combined", 0])
    )
    roles = find_roles(graph, DEFS)
    assert "prompt" not in roles.inputs
    assert [
        (str(candidate.node_input), candidate.class_type) for candidate in roles.ambiguous["prompt"]
    ] == [
        ("positive.text", "CLIPTextEncode"),
        ("sky.text", "CLIPTextEncode"),
    ]
    sky["_meta"] = {"title": "Prompt"}
    roles = find_roles(graph, DEFS)
    assert roles.inputs["prompt"] == (Input("sky", "text"),)
    assert roles.ambiguous == {}


def test_stages_with_separate_encoders_share_the_prompt() -> None:
    graph = txt2img(
        refiner=node("CheckpointLoaderSimple", ckpt_name="sub/sdxl.safetensors"),
        refined=node("CLIPTextEncode", clip=["refiner", 1], text="a lighthouse, sharp"),
        second=second_stage(model=["refiner", 0], positive=["refined", 0]),
        decode=node("VAEDecode", samples=["second", 0], vae=["refiner", 2]),
    )
    roles = find_roles(graph, DEFS)
    assert found(roles, "prompt") == ["positive.text", "refined.text"]
    assert found(roles, "checkpoint") == ["loader.ckpt_name"]
    assert [str(candidate.node_input) for candidate in roles.unassigned["checkpoint"]] == [
        "refiner.ckpt_name"
    ]
    assert [sampler.node_id for sampler in roles.samplers] == ["sampler", "second"]


def test_two_models_behind_one_text_are_equal() -> None:
    graph = txt2img(
        low=node("CheckpointLoaderSimple", ckpt_name="sub/sdxl.safetensors"),
        second=second_stage(model=["low", 0]),
        decode=node("VAEDecode", samples=["second", 0], vae=["loader", 2]),
    )
    assert found(find_roles(graph, DEFS), "checkpoint") == "ambiguous"


@pytest.mark.parametrize("latent", [["sampler", 0], ["latent", 0]])
def test_unrelated_texts_are_ambiguous(
    latent: list[Any],
) -> None:
    is_chained = latent[0] == "sampler"
    graph = txt2img(
        other=node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        text=node("CLIPTextEncode", clip=["loader" if is_chained else "other", 1], text="a cat"),
        second=second_stage(positive=["text", 0], latent_image=latent),
        decode2=node("VAEDecode", samples=["second", 0], vae=["loader", 2]),
        save2=node("SaveImage", images=["decode2", 0], filename_prefix="second"),
    )
    assert found_in(graph, "prompt") == "ambiguous"
    graph["text"]["inputs"]["text"] = "a lighthouse"
    assert found_in(graph, "prompt") == ["positive.text", "text.text"]
