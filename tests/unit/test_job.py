"""The contract of a job's input: what is taken, and how a mistake is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_worker.errors import InputError, InvalidInput, UnknownKey
from comfy_worker.request.schema import JobInput


def test_everything_is_optional() -> None:
    assert JobInput.read({}).model_dump(exclude_unset=True) == {}


def test_a_graph_may_be_an_object_or_a_json_string() -> None:
    graph = {"1": {"class_type": "KSampler", "inputs": {}}}
    assert JobInput.read({"workflow": graph}).workflow == graph
    assert JobInput.read({"workflow": json.dumps(graph)}).workflow == graph
    assert JobInput.read({"workflow": "txt2img"}).workflow == "txt2img"


def test_whole_numbers_may_come_as_text() -> None:
    assert JobInput.read({"steps": "20", "cfg": "7.5"}).model_dump(exclude_unset=True) == {"steps": 20, "cfg": 7.5}


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (None, InvalidInput, 'input must be an object such as {"prompt": "a lighthouse"}, not null'),
        ("a cat", InvalidInput, 'input must be an object such as {"prompt": "a lighthouse"}, not text'),
        ([], InvalidInput, 'input must be an object such as {"prompt": "a lighthouse"}, not a list'),
        ({"steps": "many"}, InvalidInput, 'steps must be a whole number, not "many"'),
        ({"steps": 0}, InvalidInput, "steps must be greater than or equal to 1, not 0"),
        ({"steps": True}, InvalidInput, "steps must be a whole number, not true"),
        ({"width": 7.5}, InvalidInput, "width must be a whole number, not 7.5"),
        ({"cfg": "nan"}, InvalidInput, 'cfg must be a finite number, not "nan"'),
        ({"seed": -2}, InvalidInput, "seed must be greater than or equal to -1, not -2"),
        ({"prompt": 5}, InvalidInput, "prompt must be text, not 5"),
        ({"loras": "x"}, InvalidInput, 'loras must be a list, not "x"'),
        ({"loras": [{}]}, InvalidInput, "loras.0.name is missing"),
        ({"overrides": []}, InvalidInput, "overrides must be an object"),
        ({"workflow": 3}, InvalidInput, "workflow must be a template's name or a graph, not 3"),
        ({"workflow": "{bad"}, InvalidInput, 'workflow must be a template\'s name or a graph as JSON, not "{bad"'),
        ({"workflow": "{" * 10**5}, InvalidInput, "workflow must be a template's name or a graph as JSON"),
        ({"controlnets": [{"image": "x"}]}, InvalidInput, "controlnets.0 must name a type or a model"),
        ({"response": "picture"}, InvalidInput, "response must be 'images', 'image_base64'"),
        ({"images": [{"name": "a.png"}]}, InvalidInput, "images.0.image is missing"),
        ({"images": [{"name": "a.png", "image": "x", "img": 1}]}, UnknownKey, "did you mean image?"),
        ({"sead": 1}, UnknownKey, "sead is not a key of the input; did you mean seed?"),
        ({"loras": [{"name": "a", "strenght": 1}]}, UnknownKey, "did you mean strength?"),
        ({"qqqq": 1}, UnknownKey, "qqqq is not a key of the input; the keys are prompt, negative_prompt"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(value: Any, error: type[InputError], sentence: str) -> None:
    with pytest.raises(error) as caught:
        JobInput.read(value)
    assert sentence in str(caught.value)


def test_all_mistakes_are_in_the_details() -> None:
    with pytest.raises(UnknownKey) as caught:
        JobInput.read({"steps": "many", "width": None, "heigth": 64})
    assert [detail["key"] for detail in caught.value.details] == ["steps", "heigth"]
    assert str(caught.value) == "heigth is not a key of the input; did you mean height? (1 more in the details)"


def test_null_means_absent() -> None:
    assert JobInput.read(dict.fromkeys(JobInput.model_fields)) == JobInput.read({})


def test_a_long_value_is_told_by_its_beginning() -> None:
    with pytest.raises(UnknownKey) as caught:
        JobInput.read({"k" * 5000: 1})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("asked", [True, False])
def test_validate_only_is_true_or_false(asked: bool) -> None:
    assert JobInput.read({"validate_only": asked}).validate_only is asked
