"""Words of RunPod's public endpoints and of comfy-gen, translated to our own keys."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import InvalidInput, UnknownKey
from comfy_worker.request.dialects import KNOWN_WORDS, translate
from comfy_worker.request.schema import JobInput


def read(**words: Any) -> tuple[JobInput, list[str], str | None]:
    translated = translate(words)
    read_input = JobInput.read(translated.input, translated.client_words, KNOWN_WORDS)
    return read_input, translated.warnings, translated.response


@pytest.mark.parametrize("size", ["512*768", "512x768", "512 X 768", " 512×768 "])
def test_a_size_in_one_word(size: str) -> None:
    job_input, warnings, response = read(prompt="a", size=size)
    assert (job_input.width, job_input.height) == (512, 768)
    assert (warnings, response) == ([], "image_url")


@pytest.mark.parametrize(
    ("words", "sides"),
    [
        ({"aspect_ratio": "1:1"}, (1024, 1024)),
        ({"aspect_ratio": "16:9"}, (1360, 768)),
        ({"aspect_ratio": "2.35:1"}, (1568, 672)),
        ({"aspect_ratio": "9/16", "resolution": "2k"}, (1536, 2736)),
        ({"aspect_ratio": "custom", "width": 64, "height": 96}, (64, 96)),
        ({"aspect_ratio": "custom"}, (None, None)),
        ({"aspect_ratio": None, "size": None}, (None, None)),
        ({"size": "64*32", "aspect_ratio": "1:1"}, (64, 32)),
        ({"aspect_ratio": "16:9", "width": 512}, (512, None)),
        ({"aspect_ratio": "16:9", "height": 512}, (None, 512)),
    ],
)
def test_an_aspect_ratio(words: dict[str, Any], sides: tuple[int | None, int | None]) -> None:
    job_input, _warnings, _response = read(prompt="a", **words)
    assert (job_input.width, job_input.height) == sides


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("size", "big"),
        ("size", 512),
        ("size", "512*"),
        ("size", "9999999*1"),
        ("aspect_ratio", "wide"),
        ("aspect_ratio", "16:0"),
        ("aspect_ratio", "1000:1"),
        ("aspect_ratio", 1.5),
        ("output_format", "bmp"),
        ("image_format", 3),
        ("command", "list"),
        ("file_inputs", ["a"]),
        ("file_inputs", {"12": {"field": "image"}}),
        ("file_inputs", {"12": "a.png"}),
    ],
)
def test_a_wrong_value_names_its_word(word: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=word):
        read(prompt="a", **{word: value})


def test_a_wrong_resolution_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"0\.5k, 1k, 2k, 4k"):
        read(prompt="a", aspect_ratio="1:1", resolution="8k")


def test_a_resolution_alone_is_a_warning() -> None:
    _job_input, warnings, _response = read(prompt="a", resolution="2k")
    assert warnings == ["resolution is ignored: it needs aspect_ratio beside it"]


@pytest.mark.parametrize(
    ("word", "value", "expected"),
    [
        ("output_format", "jpeg", "jpeg"),
        ("image_format", "JPG", "jpeg"),
        ("output_format", ".webp", "webp"),
    ],
)
def test_a_file_format(word: str, value: str, expected: str) -> None:
    assert read(prompt="a", **{word: value})[0].output.format == expected
    kept, _warnings, _response = read(prompt="a", output={"format": "png"}, **{word: value})
    assert kept.output.format == "png"


def test_images_as_texts() -> None:
    job_input, warnings, response = read(prompt="a", images=["data:a"])
    assert (job_input.image, warnings, response) == ("data:a", [], "image_url")
    job_input, warnings, _response = read(prompt="a", images=[None, "data:a", None])
    assert (job_input.image, warnings) == ("data:a", [])
    job_input, warnings, _response = read(prompt="a", images=["data:a", "data:b"])
    assert (job_input.image, len(warnings)) == ("data:a", 1)
    job_input, warnings, _response = read(prompt="a", workflow="edit", images=["data:a", "data:b"])
    assert (job_input.image, job_input.parameters, warnings) == ("data:a", {"image2": "data:b"}, [])


def test_named_images_stay_as_they_are() -> None:
    job_input, _warnings, response = read(workflow="w", images=[{"name": "a.png", "image": "x"}])
    assert (job_input.images[0].name, response) == ("a.png", None)


def test_loras_by_path_and_scale() -> None:
    job_input, _warnings, _response = read(prompt="a", loras=[{"path": "x", "scale": 0.5}, "y"])
    assert [(lora.name, lora.strength) for lora in job_input.loras] == [("x", 0.5), ("y", 1)]


def test_options_without_effect_are_dropped() -> None:
    words = ("enable_base64_output", "enable_sync_mode", "disable_safety_checker")
    job_input, warnings, _response = read(
        prompt="a", maxPollAttempts=30, pollIntervalMillis=500, **dict.fromkeys(words, True)
    )
    assert (job_input.prompt, warnings) == ("a", [])


def test_comfy_gens_job() -> None:
    job_input, warnings, response = read(
        workflow={"1": {}},
        timeout=600,
        overrides={"7": {"seed": 42}, "9.text": "b"},
        file_inputs={"12": {"field": "image", "url": "https://host/a.png", "filename": "a.png"}},
    )
    assert job_input.overrides == {
        "12.image": "https://host/a.png", "7.seed": 42, "9.text": "b",
    }  # fmt: skip
    assert response is None
    assert warnings == [
        'timeout is ignored: send `"policy": {"executionTimeout": ...}` beside `input`'
    ]


def test_an_object_for_one_input_stays_an_object() -> None:
    job_input, _warnings, _response = read(overrides={"7.curve": {"points": []}})
    assert job_input.overrides == {"7.curve": {"points": []}}


def test_unknown_words_are_still_errors() -> None:
    with pytest.raises(UnknownKey, match="sizes"):
        read(prompt="a", sizes="512*512")


@pytest.mark.parametrize("word", ["video", "video_url"])
def test_a_video_is_what_a_template_starts_with(word: str) -> None:
    job_input, warnings, _response = read(workflow="w", **{word: "https://host/clip.mp4"})
    assert (job_input.image, warnings) == ("https://host/clip.mp4", [])
