"""ComfyUI's command line, as the settings ask for it."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.comfyui.launch import PRECISIONS, LaunchOptions, launch_flags
from comfy_worker.comfyui.process import ComfyUIProcess


def flags(**options: Any) -> list[str]:
    return launch_flags(LaunchOptions(Path(), api_nodes=True, **options), accelerator=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"precision": "fp16"}, ["--fp16-unet", "--fp16-text-enc"]),
        ({"precision": "bf16"}, ["--bf16-unet", "--bf16-text-enc"]),
        ({"precision": "fp32"}, ["--fp32-unet", "--fp32-text-enc", "--fp32-vae"]),
        ({"precision": "fp8"}, ["--fp8_e4m3fn-unet", "--fp8_e4m3fn-text-enc"]),
        ({"xformers": False}, ["--disable-xformers"]),
        ({"xformers": True}, []),
        ({"args": ("--lowvram",)}, ["--lowvram"]),
        ({"precision": "fp8", "args": ("--fp16-unet",)}, ["--fp8_e4m3fn-text-enc", "--fp16-unet"]),
        ({"precision": "fp8", "args": ("--force-fp16",)}, ["--force-fp16"]),
    ],
)
def test_settings_become_flags_and_comfy_args_win(
    options: dict[str, Any], expected: list[str]
) -> None:
    assert flags(**options) == expected


def test_without_a_gpu_comfyui_is_told_once() -> None:
    assert launch_flags(LaunchOptions(Path()), accelerator=False) == [
        "--disable-api-nodes",
        "--cpu",
    ]
    assert (
        launch_flags(LaunchOptions(Path(), args=("--cpu",)), accelerator=False).count("--cpu") == 1
    )


@pytest.mark.comfyui
@pytest.mark.parametrize("precision", PRECISIONS)
def test_comfyui_knows_the_flags(precision: str, comfyui_arguments: Any) -> None:
    comfyui_arguments.parse_args(flags(precision=precision, xformers=False))


@pytest.fixture
def comfyui_arguments(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parser of the ComfyUI that the tests run."""
    import os

    from comfy_common import paths

    monkeypatch.syspath_prepend(str(paths.comfyui_dir(os.environ)))
    return importlib.import_module("comfy.cli_args").parser


def test_missing_xformers_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert importlib.util.find_spec("xformers") is None
    for xformers in (True, False, None):
        process = ComfyUIProcess(LaunchOptions(tmp_path, xformers=xformers))
        with caplog.at_level(logging.WARNING):
            process.start()
        process.stop()
    (record,) = [record for record in caplog.records if "xformers" in record.getMessage()]
    assert record.levelname == "WARNING"
