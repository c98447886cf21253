"""RunPod's Hub shows every setting as declared; the image's variants name sections that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from comfy_common.paths import REPO
from comfy_setup import packages
from comfy_setup.models import parse_models
from comfy_worker.settings import Settings
from docs.tools import make_tables


def hub() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPO / ".runpod" / "hub.json").read_text(encoding="utf-8"))
    return read


def test_the_hub_knows_every_setting() -> None:
    expected = make_tables.hub_environment()
    assert hub()["config"]["env"] == expected, "run `.venv/bin/python -m docs.tools.make_tables`"


def test_what_the_hub_sets_by_itself_is_what_the_worker_does_by_itself() -> None:
    defaults = {entry["key"]: entry["input"]["default"] for entry in hub()["config"]["env"]}
    given = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in defaults.items()}
    assert Settings.from_env(given) == Settings.from_env({})


def test_the_hub_asks_for_hosts_that_the_default_torch_runs_on() -> None:
    lock = packages.WORKER_LOCKS[packages.DEFAULT_CUDA].read_text()
    [cuda] = set(re.findall(r"^nvidia-cuda-runtime==(\d+\.\d+)", lock, re.M))
    tests = json.loads((REPO / ".runpod" / "tests.json").read_text(encoding="utf-8"))
    for config in (hub()["config"], tests["config"]):
        assert config["allowedCudaVersions"][0] == cuda


def test_a_variant_of_the_image_bakes_sections_of_models_txt_and_is_released() -> None:
    text = (REPO / "docker-bake.hcl").read_text(encoding="utf-8")
    variants = dict(re.findall(r'name = "([\w-]+)", models = "([^"]*)"', text))
    assert list(variants) == ["base", "sd15", "sdxl", "flux-schnell", "flux-dev", "z-image", "qwen-image"]
    sections = {entry.section for entry in parse_models((REPO / "models.txt").read_text(encoding="utf-8"))}
    assert {name for models in variants.values() for name in models.split()} <= sections
    assert variants["base"] == ""
    release = yaml.safe_load((REPO / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    assert release["jobs"]["image"]["strategy"]["matrix"]["variant"] == list(variants)
