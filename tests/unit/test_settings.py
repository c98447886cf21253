"""Settings are read once, all bad ones are named together, and the docs list them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_common.paths import REPO
from comfy_worker.errors import InvalidSettings
from comfy_worker.settings import Settings


def test_nothing_set_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert (settings.concurrency, settings.comfy_args, settings.api_nodes) == (None, (), False)
    assert settings.comfyui_dir == REPO / ".comfyui"
    assert (settings.response_format, settings.max_batch_size, settings.precision) == (
        "images",
        4,
        "",
    )
    assert (settings.enable_xformers, settings.hf_token) == (None, None)


def test_values_are_read_in_their_own_form(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {
            "WORKER_CONCURRENCY": "4",
            "COMFY_ARGS": "--lowvram --reserve-vram '1.5'",
            "COMFY_LOG_LEVEL": "warning",
            "API_NODES": "true",
            "SD_MODEL": "  ",
            "RESPONSE_FORMAT": "image_url",
            "MAX_BATCH_SIZE": "8",
            "PRECISION": "FP16",
            "ENABLE_XFORMERS": "false",
            "HF_TOKEN": "hf_secret",
            "COMFYUI_DIR": str(tmp_path),
            "MODELS_DIR": str(tmp_path / "models"),
        }
    )
    assert settings.concurrency == 4
    assert settings.comfy_args == ("--lowvram", "--reserve-vram", "1.5")
    assert settings.comfy_log_level == "WARNING"
    assert settings.api_nodes
    assert settings.sd_model == ""
    assert (settings.response_format, settings.max_batch_size, settings.precision) == (
        "image_url",
        8,
        "fp16",
    )
    assert settings.enable_xformers is False
    assert settings.hf_token is not None
    assert settings.hf_token.get_secret_value() == "hf_secret"
    assert "hf_secret" not in repr(settings)
    assert settings.comfyui_dir == tmp_path
    assert settings.model_roots[0] == tmp_path / "models"


@pytest.mark.parametrize("value", ["none", " None ", "NONE,"])
def test_the_word_none_allows_no_model_host(value: str) -> None:
    assert Settings.from_env({"MODELS_ALLOWED_HOSTS": value}).models_allowed_hosts == ()


def test_all_bad_values_are_named_together() -> None:
    bad = {
        "WORKER_CONCURRENCY": "0",
        "COMFY_LOG_LEVEL": "loud",
        "COMFY_ARGS": "'open",
        "API_NODES": "perhaps",
        "RESPONSE_FORMAT": "picture",
        "MAX_BATCH_SIZE": "0",
        "PRECISION": "fp4",
        "ENABLE_XFORMERS": "maybe",
    }
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env(bad)
    assert {detail["setting"] for detail in caught.value.details} == set(bad)
    assert all(name in str(caught.value) for name in bad)


@pytest.mark.parametrize(
    "args", ["--listen 0.0.0.0", "--lowvram --port=8188", "--input-dir /x", "--out /x"]
)
def test_flags_that_are_the_workers_own_are_refused(args: str) -> None:
    with pytest.raises(InvalidSettings, match=r"COMFY_ARGS: --[a-z-]+ is the worker's own to set"):
        Settings.from_env({"COMFY_ARGS": args})


def test_what_nobody_may_see_is_known() -> None:
    environ = {"HF_TOKEN": "hf-token", "COMFY_ORG_API_KEY": "comfyui-key"}
    assert sorted(Settings.from_env(environ).secrets) == ["comfyui-key", "hf-token"]
