"""Hints name what is near, and nothing else; they stay cheap for hostile words and long lists."""

from __future__ import annotations

import time

import pytest

from comfy_worker.errors import UnknownKey
from comfy_worker.nearest import did_you_mean, nearest
from comfy_worker.request.schema import JobInput

KEYS = list(JobInput.model_fields)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("promt", "prompt"),
        ("Prompt", "prompt"),
        ("stpes", "steps"),
        ("cgf", "cfg"),
        ("wdith", "width"),
        ("heigth", "height"),
        ("lora", "loras"),
        ("neg_prompt", "negative_prompt"),
        ("valid", "validate_only"),
        ("negative", "negative_prompt"),
        ("sampler_name", "sampler"),
        ("noise_seed", "seed"),
        ("output_format", "output"),
    ],
)
def test_a_slip_finds_its_key(word: str, near: str) -> None:
    assert nearest(word, KEYS)[0] == near


@pytest.mark.parametrize(
    "word", ["id", "x", "", "style", "name", "user", "webhook", "ratio", "🦊", "id" * 40]
)
def test_a_word_that_is_far_finds_nothing(word: str) -> None:
    assert nearest(word, KEYS) == []


def test_a_far_key_is_told_all_keys() -> None:
    with pytest.raises(
        UnknownKey, match="id is not a key of the input; the keys are prompt"
    ) as caught:
        JobInput.read({"id": 5})
    assert caught.value.details[0]["nearest"] is None


def test_the_best_comes_first() -> None:
    names = ["euler_cfg_pp", "euler", "euler_ancestral", "dpmpp_2m"]
    assert nearest("eulr", names) == ["euler"]
    assert nearest("euler_ancestra", names)[0] == "euler_ancestral"
    assert did_you_mean("eulr", names, "nothing") == "did you mean euler?"
    assert did_you_mean("zzz", names, "there are four") == "there are four"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("a" * 1_000_000, ["a" * 1_000_000 + str(number) for number in range(50)]),
        ("abcdefgh" * 8, ["hgfedcba" * 7 + f"{number:08}" for number in range(20_000)]),
        ("seed", [f"node_{number}" for number in range(100_000)]),
        ("ab" * 32, [("ba" * 32)[: 40 + number % 24] + str(number) for number in range(5_000)]),
    ],
)
def test_long_words_and_lists_are_cheap(word: str, names: list[str]) -> None:
    began = time.process_time()
    nearest(word, names)
    assert time.process_time() - began < 5


def test_a_hundred_thousand_unknown_keys_are_cheap() -> None:
    began = time.process_time()
    with pytest.raises(UnknownKey):
        JobInput.read({f"promt{number}": 1 for number in range(100_000)})
    assert time.process_time() - began < 30
