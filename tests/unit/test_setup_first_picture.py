"""What `run` does with a job's answer: the files it writes, the failure it tells."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.job_options import with_format
from comfy_local.first_picture import tell_failure, tell_result, write_files
from comfy_worker.client import JobStatus


def media(name: str, content: bytes = b"bytes") -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    fields = {
        "filename": name,
        "mime_type": "image/png",
        "width": 64,
        "height": 32,
        "bytes": 5_000_000,
    }
    return {**fields, "type": "base64", "data": data}


def test_pictures_are_named_after_workflow_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "OUTPUT", tmp_path / "output")
    result = {"images": [media("a_1.png", b"one"), media("a_2.png", b"two")], "seed": 7}
    written = write_files({**result, "workflow": "txt2img"}, None)
    assert [path.name for path in written] == ["txt2img-7.png", "txt2img-7-2.png"]
    assert [path.read_bytes() for path in written] == [b"one", b"two"]


def test_output_gets_the_first_picture_and_folders(tmp_path: Path) -> None:
    result = {"images": [], "videos": [media("v.mp4"), media("w.webm")], "seed": None}
    written = write_files(result, tmp_path / "new" / "a.mp4")
    assert written == [tmp_path / "new" / "a.mp4", tmp_path / "new" / "a-2.webm"]


def test_a_name_does_not_lie_about_its_file(tmp_path: Path) -> None:
    for output, made, written in (
        ("a.jpg", "x.jpeg", "a.jpg"),
        ("a.JPG", "x.jpg", "a.JPG"),
        ("a.gif", "x.png", "a.gif.png"),
        ("a.jpg", "x.mp4", "a.jpg.mp4"),
        ("a", "x.png", "a.png"),
    ):
        (path,) = write_files({"images": [media(made)], "seed": 1}, tmp_path / output)
        assert path.name == written


@pytest.mark.parametrize(
    ("output", "options", "wanted"),
    [
        ("a.jpg", None, {"format": "jpeg"}),
        ("a.JPEG", {"quality": 5}, {"quality": 5, "format": "jpeg"}),
        ("a.webp", {"format": None}, {"format": "webp"}),
        ("a.png", {"format": "png"}, {"format": "png"}),
        ("a.mp4", {"quality": 5}, {"quality": 5}),
        ("a.jpg", "text", "text"),
    ],
)
def test_the_ending_of_the_output_is_its_format(output: str, options: Any, wanted: Any) -> None:
    job_input = {"prompt": "x"} if options is None else {"prompt": "x", "output": options}
    assert with_format(job_input, Path(output))["output"] == wanted


def test_an_ending_that_contradicts_the_input_is_told() -> None:
    with pytest.raises(
        SetupError, match=r"--output a\.jpg and the input's output\.format webp differ"
    ):
        with_format({"output": {"format": "webp"}}, Path("a.jpg"))
    assert with_format({"prompt": "x"}, None) == {"prompt": "x"}


def test_a_job_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="made no file"):
        write_files({"images": [], "videos": None, "seed": 1}, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_the_toy_is_announced_once() -> None:
    stream = io.StringIO()
    stand_in = "checkpoint a.safetensors is not installed; comfy-worker-toy.safetensors stood in"
    result = {"images": [], "timings": {"stages": {}}, "warnings": [stand_in, "another warning"]}
    tell_result(Console(stream), result, toy_only=True)
    assert stream.getvalue() == "Time by stage: \nWarning: another warning\n"
    tell_result(Console(stream), result)
    assert f"Warning: {stand_in}" in stream.getvalue()


def test_size_seed_times_and_warnings_are_told() -> None:
    stream = io.StringIO()
    timings = {"stages": {"queue": 3, "execute": 280}, "nodes": {}}
    tell_result(
        Console(stream),
        {
            "images": [media("a.png")],
            "seed": 7,
            "timings": timings,
            "warnings": ["took the only one"],
        },
    )
    assert stream.getvalue().splitlines() == [
        "PNG, 64x32, 5 MB, seed 7",
        "Time by stage: queue 3 ms, execute 280 ms",
        "Warning: took the only one",
    ]


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (
            {
                "error": "INVALID_VALUE: width 7",
                "output": {"details": [{"key": "width", "log": ["a", "b"]}, "more"]},
            },
            [
                "Error: INVALID_VALUE: width 7",
                "  key: width",
                "  log: a",
                "  log: b",
                "  detail: more",
            ],
        ),
        ({"error": "X: y", "output": None}, ["Error: X: y"]),
        ({}, ["Error: the job gave no reason"]),
    ],
)
def test_a_failure_is_told_with_its_details(answer: dict[str, Any], lines: list[str]) -> None:
    stream = io.StringIO()
    tell_failure(Console(stream), JobStatus.read({"status": "FAILED", **answer}))
    assert stream.getvalue().splitlines() == lines
