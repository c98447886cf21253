from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_worker.errors import Ambiguous, ModelNotFound
from comfy_worker.workflow.model_names import match

INSTALLED = [
    "detail.safetensors",
    "Style.safetensors",
    "style.safetensors",
    "sdxl/detail-xl.safetensors",
    "sdxl/ink.safetensors",
    "sd15/ink.safetensors",
    "win\\paint.pt",
    "v1.5-pruned.ckpt",
]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("detail.safetensors", "detail.safetensors"),
        ("detail", "detail.safetensors"),
        (" detail ", "detail.safetensors"),
        ("DETAIL", "detail.safetensors"),
        ("detail-xl", "sdxl/detail-xl.safetensors"),
        ("detail-xl.safetensors", "sdxl/detail-xl.safetensors"),
        ("sdxl/detail-xl", "sdxl/detail-xl.safetensors"),
        ("sdxl\\ink", "sdxl/ink.safetensors"),
        ("win/paint", "win\\paint.pt"),
        ("v1.5-pruned", "v1.5-pruned.ckpt"),
        ("Style", "Style.safetensors"),
        ("style", "style.safetensors"),
    ],
)
def test_names_match_without_folder_and_extension(name: str, file: str) -> None:
    assert match(name, INSTALLED, "lora") == file


def test_a_full_name_wins_over_a_partial_match() -> None:
    assert (
        match("ink.safetensors", ["a/ink.safetensors", "ink.safetensors"], "lora")
        == "ink.safetensors"
    )


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ink", ["sdxl/ink.safetensors", "sd15/ink.safetensors"]),
        ("STYLE", ["Style.safetensors", "style.safetensors"]),
    ],
)
def test_several_files_are_an_error_that_lists_them(name: str, files: list[str]) -> None:
    with pytest.raises(Ambiguous) as caught:
        match(name, INSTALLED, "lora")
    assert [detail["file"] for detail in caught.value.details] == files
    assert all(file in caught.value.sentence for file in files)


def test_a_missing_file_error_names_folder_and_nearest() -> None:
    with pytest.raises(ModelNotFound) as caught:
        match("detial", INSTALLED, "lora")
    assert caught.value.details[0]["folder"] == "loras"
    assert caught.value.details[0]["nearest"][0] == "detail.safetensors"
    assert "models/loras" in caught.value.sentence
    assert "detail.safetensors" in caught.value.sentence


@pytest.mark.parametrize("name", ["", "tail", ".safetensors", "sdxl", "detail.ckpt", "xx/detail"])
def test_a_piece_of_a_name_is_no_match(name: str) -> None:
    with pytest.raises(ModelNotFound):
        match(name, INSTALLED, "lora")


def test_without_any_file_the_error_says_so() -> None:
    with pytest.raises(ModelNotFound, match=r"models/checkpoints.*empty"):
        match("anything", [], "checkpoint")


def test_without_a_near_name_the_error_lists_some() -> None:
    with pytest.raises(ModelNotFound, match=r"2 there, such as aaa.pt, bbb.pt"):
        match("zzzzzz", ["aaa.pt", "bbb.pt"], "vae")


@given(st.lists(st.from_regex(r"[aAbB./]{1,6}", fullmatch=True), unique=True, min_size=1))
def test_every_listed_name_means_itself(choices: list[str]) -> None:
    assert all(match(choice, choices, "lora") == choice for choice in choices)
