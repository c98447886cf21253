"""Any input of any node, by id or title: what is reached and what is refused."""

from __future__ import annotations

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
from comfy_worker.workflow.edit.overrides import apply_overrides
from tests.core_nodes import DEFS, changes, ksampler, node, txt2img

OVERRIDDEN = {
    "4.1": ksampler(),
    "5": node("LatentUpscale", "Up.scale", samples=["4.1", 0], width=64, height=64),
    "6": node("Unknown", "Twin", a=1),
    "7": node("VAEDecode", "Twin", samples=["4.1", 0], vae=["8", 0]),
    "8": node("VAELoader", vae_name="taesd"),
}


def test_overrides_reach_any_input_by_id_or_title() -> None:
    result = apply_overrides(
        OVERRIDDEN,
        DEFS,
        {
            "4.1.steps": 3,
            "Up.scale.width": 128,
            "6.b": {"any": 1},
            "7.samples": ["5", 0],
            "8.vae_name": "ae",
        },
    )
    assert changes(OVERRIDDEN, result) == {
        "4.1.steps": 3,
        "5.width": 128,
        "6.b": {"any": 1},
        "7.samples": ["5", 0],
        "8.vae_name": "ae.safetensors",
    }


def test_an_input_has_one_value() -> None:
    graph = {"1": ksampler(), "2": node("KSampler", "Twin")}
    same = apply_overrides(graph, DEFS, {"2.steps": 3, "Twin.steps": 3})
    assert same["2"]["inputs"]["steps"] == 3
    with pytest.raises(InvalidValue, match=r"'2\.steps' and 'Twin\.steps' both set 2\.steps"):
        apply_overrides(graph, DEFS, {"2.steps": 3, "Twin.steps": 4})


def test_an_override_takes_the_place_of_a_link() -> None:
    graph = txt2img(
        positive=node("CLIPTextEncode", clip=["loader", 1], text=["text", 0]),
        text=node("Text", a="x"),
    )
    assert changes(graph, apply_overrides(graph, DEFS, {"positive.text": "y"})) == {
        "positive.text": "y"
    }


@pytest.mark.parametrize(
    ("key", "value", "error", "sentence"),
    [
        ("steps", 3, InvalidInput, "overrides key 'steps' must have the form 'node.input'"),
        (
            "9.steps",
            3,
            NoPlace,
            "overrides '9.steps': this graph has no node with the id or title '9'; there are",
        ),
        (
            "Up.scal.width",
            3,
            NoPlace,
            "overrides 'Up.scal.width': this graph has no node with the id or title ",
        ),
        (
            "4.1.step",
            3,
            NoPlace,
            "overrides '4.1.step': node 4.1 (KSampler) has no input 'step'; did you mean steps",
        ),
        (
            "Twin.a",
            3,
            Ambiguous,
            "overrides 'Twin.a': nodes 6, 7 all have the title 'Twin'; write the id",
        ),
        ("4.1.steps", "x", InvalidInput, "4.1.steps must be of type integer, not 'x'"),
        ("4.1.steps", 0, InvalidValue, "4.1.steps must be at least 1"),
        (
            "5.width",
            9,
            InvalidValue,
            "5.width must be at least 0 and at most 16384, in steps of 8, not 9; use 8 or 16",
        ),
        ("4.1.model", "x", InvalidValue, "overrides '4.1.model' takes a MODEL from another node"),
        (
            "4.1.model",
            ["99", 0],
            InvalidValue,
            "overrides '4.1.model' links to node 99, which does not exist in this workflow",
        ),
        ("8.vae_name", "no", ModelNotFound, "vae 'no' is not installed"),
    ],
)
def test_an_override_that_cannot_be_done_is_refused(
    key: str, value: Any, error: type[InputError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        apply_overrides(OVERRIDDEN, DEFS, {key: value})
    assert caught.value.sentence.startswith(sentence)
    assert caught.value.details
