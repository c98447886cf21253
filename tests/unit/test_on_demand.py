"""Models that a job brings or lacks: what is refused before anything is fetched."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from comfy_worker.deadline import Deadline
from comfy_worker.errors import ModelNotFetched
from comfy_worker.models.cache import ModelCache
from comfy_worker.models.downloads import JobModels
from comfy_worker.settings import Settings
from comfy_worker.workflow.model_files import ModelFile


def models(folder: Path) -> JobModels:
    return JobModels(
        Settings.from_env({}), ModelCache(folder, 1), ExitStack(), lambda _message: None, Deadline()
    )


def test_a_need_whose_url_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFetched, match="a model is given by a URL that begins with https://"
    ):
        models(tmp_path).fetch_needs(
            [ModelFile("loras", "a.safetensors", "ftp://h.example/a.safetensors")]
        )


def test_another_host_behind_an_allowed_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFetched, match="a model is given by a URL"):
        models(tmp_path).fetch([("loras", r"https://evil.example\@civitai.com/a.safetensors")])
