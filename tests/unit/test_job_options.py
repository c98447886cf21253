"""The options that describe a job, and the input they make."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from comfy_common.errors import SetupError
from comfy_common.job_options import INPUT_KEYS, PARAMETER_KEYS, add_job_options, job_input
from comfy_worker.request.schema import JobInput, Parameters


def read(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    return job_input(parser.parse_args(list(arguments)))


def test_known_keys_are_those_of_the_schema() -> None:
    assert set(JobInput.model_fields) == INPUT_KEYS
    assert set(Parameters.model_fields) == set(PARAMETER_KEYS)


def test_values_are_typed_by_their_key() -> None:
    made = read(
        *("--set", "steps=8", "--set", "prompt=7", "--set", "output.quality=80"),
        *("--set", "12.scale_by=2.5", "--set", "Load Image.image=a=b", "--set", "upscale_by=2"),
        *("--set", "parameters.look=wild", "--set", "sampler=euler", "--prompt", "a=b"),
    )
    assert made == {
        "steps": 8,
        "prompt": "7",
        "output": {"quality": 80},
        "overrides": {"12.scale_by": 2.5, "Load Image.image": "a=b"},
        "parameters": {"upscale_by": 2, "look": "wild"},
        "sampler": "euler",
    } | {"prompt": "7"}


def test_options_win_over_the_input() -> None:
    made = read("--input", '{"prompt": "a", "loras": [{"name": "x"}]}', "--prompt", "b")
    assert made == {"prompt": "b", "loras": [{"name": "x"}]}


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("style", {"name": "style"}),
        ("style:0.8", {"name": "style", "strength": 0.8}),
        ("https://host/a.safetensors", {"name": "https://host/a.safetensors"}),
        ("https://host:81/a:-1", {"name": "https://host:81/a", "strength": -1.0}),
    ],
)
def test_loras_have_a_strength(text: str, lora: dict[str, Any]) -> None:
    assert read("--lora", text)["loras"] == [lora]


def test_a_file_becomes_a_data_uri(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    made = read("--image", str(picture), "--mask", "https://host/m.png")
    data = base64.b64encode(b"\x89PNG").decode()
    assert made == {"image": f"data:image/png;base64,{data}", "mask": "https://host/m.png"}


def test_a_template_is_a_name_or_a_file(tmp_path: Path) -> None:
    graph = {"1": {"class_type": "EmptyImage", "inputs": {}}}
    file = tmp_path / "poster.json"
    file.write_text(json.dumps(graph))
    assert read("--template", "poster")["workflow"] == "poster"
    assert read("--template", str(file))["workflow"] == graph


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", "gone.png"], "--image: gone.png cannot be read: No such file"),
        (["--set", "steps"], "must have the form KEY=VALUE"),
        (["--set", "=8"], "must have the form KEY=VALUE"),
        (["--set", "mask=gone.png"], "--set mask: gone.png cannot be read"),
        (["--lora", "style:much"], "the strength must be a number"),
        (["--lora", "https://host/a:much"], "the strength must be a number"),
        (["--template", "gone.json"], "--template: gone.json cannot be read"),
        (["--template", "./gone"], "--template: ./gone cannot be read"),
    ],
)
def test_wrong_values_are_named(arguments: list[str], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        read(*arguments)
