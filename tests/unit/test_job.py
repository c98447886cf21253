"""The contract of a job's input: what is taken, and how a mistake is told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from comfy_worker.errors import InputError, InvalidInput, UnknownKey
from comfy_worker.request.schema import JobInput


def test_everything_is_optional() -> None:
    assert JobInput.read({}).model_dump(exclude_unset=True) == {}


def test_graphs_may_be_objects_or_json_strings() -> None:
    graph = {"1": {"class_type": "KSampler", "inputs": {}}}
    assert JobInput.read({"workflow": graph}).workflow == graph
    assert JobInput.read({"workflow": json.dumps(graph)}).workflow == graph
    assert JobInput.read({"workflow": "txt2img"}).workflow == "txt2img"


def test_whole_numbers_may_come_as_text() -> None:
    assert JobInput.read({"steps": "20", "cfg": "7.5"}).model_dump(exclude_unset=True) == {
        "steps": 20,
        "cfg": 7.5,
    }


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (
            None,
            InvalidInput,
            'input must be an object such as {"prompt": "a lighthouse"}, not null',
        ),
        (
            "a cat",
            InvalidInput,
            'input must be an object such as {"prompt": "a lighthouse"}, not text',
        ),
        (
            [],
            InvalidInput,
            'input must be an object such as {"prompt": "a lighthouse"}, not a list',
        ),
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
        (
            {"overrides": {"3.seed": 1, "3": {"seed": 2}}},
            InvalidInput,
            "overrides must hold one value per input, but '3.seed' has different ones",
        ),
        ({"workflow": 3}, InvalidInput, "workflow must be a template's name or a graph, not 3"),
        (
            {"workflow": "{bad"},
            InvalidInput,
            'workflow must be a template\'s name or a graph as JSON, not "{bad"',
        ),
        (
            {"workflow": "{" * 10**5},
            InvalidInput,
            "workflow must be a template's name or a graph as JSON",
        ),
        (
            {"controlnets": [{"image": "x"}]},
            InvalidInput,
            "controlnets.0 must name a type or a model",
        ),
        ({"response": "picture"}, InvalidInput, "response must be 'images', 'image_base64'"),
        ({"seed": "1_000"}, InvalidInput, "seed must be a whole number without underscores"),
        ({"cfg": "1_0.5"}, InvalidInput, "cfg must be a number without underscores"),
        ({"images": [{"name": "a.png"}]}, InvalidInput, "images.0.image is missing"),
        (
            {
                "images": [
                    {"name": "a.png", "image": "x"},
                    {"name": "clipspace/b.png", "image": "x"},
                    {"name": "a.png [input]", "image": "y"},
                ]
            },
            InvalidInput,
            "images must hold one picture per name, but 'a.png' has different ones",
        ),
        (
            {"images": [{"name": "a.png", "image": "x", "img": 1}]},
            UnknownKey,
            "did you mean image?",
        ),
        ({"sead": 1}, UnknownKey, "sead is not a key of the input; did you mean seed?"),
        ({"loras": [{"name": "a", "strenght": 1}]}, UnknownKey, "did you mean strength?"),
        (
            {"qqqq": 1},
            UnknownKey,
            "qqqq is not a key of the input; the keys are prompt, negative_prompt",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    value: Any, error: type[InputError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        JobInput.read(value)
    assert sentence in str(caught.value)


def test_all_mistakes_are_in_the_details() -> None:
    with pytest.raises(UnknownKey) as caught:
        JobInput.read({"steps": "many", "width": None, "heigth": 64})
    assert [detail["key"] for detail in caught.value.details] == ["steps", "heigth"]
    assert (
        str(caught.value)
        == "heigth is not a key of the input; did you mean height? (1 more in the details)"
    )


def test_null_means_absent() -> None:
    assert JobInput.read(dict.fromkeys(JobInput.model_fields)) == JobInput.read({})


@pytest.mark.parametrize(
    ("value", "same_as"),
    [
        (
            {"loras": [{"name": "a", "strength": None, "strength_clip": None}]},
            {"loras": [{"name": "a"}]},
        ),
        ({"loras": [None, {"name": "a"}]}, {"loras": [{"name": "a"}]}),
        (
            {
                "controlnets": [
                    {"type": "canny", "image": "x", "model": None, "strength": None, "end": None}
                ]
            },
            {"controlnets": [{"type": "canny", "image": "x"}]},
        ),
        ({"output": {"format": None, "quality": None, "progress": None}}, {}),
        ({"images": [None]}, {}),
        ({"parameters": {"upscale_by": None, "x": 1}}, {"parameters": {"x": 1}}),
        ({"overrides": {"3.seed": None}}, {}),
        ({"overrides": {"3": {"seed": None, "cfg": 2}}}, {"overrides": {"3.cfg": 2}}),
    ],
)
def test_null_within_means_absent_too(value: Any, same_as: Any) -> None:
    assert JobInput.read(value) == JobInput.read(same_as)


def test_null_under_an_unknown_key_is_a_mistake() -> None:
    with pytest.raises(UnknownKey, match=r"did you mean strength\?"):
        JobInput.read({"loras": [{"name": "a", "strenght": None}]})


@pytest.mark.parametrize("key", ["seed", "steps", "width", "batch_size"])
@pytest.mark.parametrize(
    "value", ["many", "9" * 400, "9" * 5000, [1], True, int("9" * 400), -int("9" * 400), 1.5]
)
def test_what_is_no_whole_number_is_told_so(key: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"^{key} must be a whole number") as caught:
        JobInput.read({key: value})
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [int("9" * 400), "9" * 400, "9" * 5000, False, [1.0]])
def test_what_is_no_number_is_told_so(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^cfg must be a number"):
        JobInput.read({"cfg": value})


def test_a_hundred_thousand_unknown_keys_are_told_soon() -> None:
    began = time.process_time()
    with pytest.raises(UnknownKey) as caught:
        JobInput.read({"steps": "many", **{f"prompt{number}": 1 for number in range(100_000)}})
    assert time.process_time() - began < 10
    assert len(json.dumps(caught.value.to_result())) < 10_000
    assert str(caught.value).startswith(
        "prompt0 is not a key of the input; did you mean prompt? (100000 more"
    )


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("heigth", "height"),
        ("negative", "negative_prompt"),
        ("id", None),
        ("payload", None),
        ("p" * 10**6, None),
    ],
)
def test_only_a_near_word_is_a_hint(word: str, nearest: str | None) -> None:
    with pytest.raises(UnknownKey) as caught:
        JobInput.read({word: 1})
    assert caught.value.details[0]["nearest"] == nearest


LONG = "a" * 10**6


@pytest.mark.parametrize(
    "value",
    [
        {"checkpoint": LONG},
        {"vae": LONG},
        {"sampler": LONG},
        {"scheduler": LONG},
        {"response": LONG},
        {"loras": [{"name": LONG}]},
        {"controlnets": [{"type": LONG, "image": "x"}]},
        {"images": [{"name": LONG, "image": "x"}]},
        {"overrides": {LONG: 1}},
        {"overrides": {f"1.{LONG}": 1}},
        {"parameters": {LONG: 1}},
        {"output": {"format": LONG}},
        {"output": {LONG: 1}},
        {"seed": LONG},
        {"width": "1" * 10**6},
        {LONG: 1},
    ],
)
def test_long_words_are_refused_in_a_short_error(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        JobInput.read(value)
    assert len(json.dumps(caught.value.to_result())) < 3000


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("loras", {"name": "a"}),
        ("images", {"name": "a", "image": "x"}),
        ("controlnets", {"type": "a", "image": "x"}),
    ],
)
def test_lists_have_a_longest_length(key: str, entry: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=f"^{key} must be a list of at most 200 entries$"):
        JobInput.read({key: [entry] * 100_000})


def test_a_name_may_carry_its_folder() -> None:
    read = JobInput.read({"images": [{"name": "clipspace/a.png [input]", "image": "x"}]})
    assert read.images[0].name == "clipspace/a.png"


def test_a_long_value_is_told_by_its_beginning() -> None:
    with pytest.raises(UnknownKey) as caught:
        JobInput.read({"k" * 5000: 1})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", [True, False])
def test_validate_only_is_true_or_false(value: bool) -> None:
    assert JobInput.read({"validate_only": value}).validate_only is value
