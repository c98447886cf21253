"""RunPod's Hub shows every setting as declared; the image's variants name sections that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from comfy_common.models_txt import parse_models
from comfy_common.paths import REPO
from comfy_setup import packages
from comfy_worker.settings import Settings
from docs.tools import make_tables


def hub() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPO / ".runpod" / "hub.json").read_text(encoding="utf-8"))
    return read


def test_the_hub_knows_every_setting() -> None:
    expected = make_tables.hub_environment()
    assert hub()["config"]["env"] == expected, "run `.venv/bin/python -m docs.tools.make_tables`"


def test_hub_defaults_equal_the_workers() -> None:
    environ = {}
    for entry in hub()["config"]["env"]:
        default = entry["input"]["default"]
        is_flag = isinstance(default, bool)
        environ[entry["key"]] = str(default).lower() if is_flag else str(default)
    assert Settings.from_env(environ) == Settings.from_env({})


def test_hub_hosts_run_the_default_torch() -> None:
    lock = packages.WORKER_LOCKS[packages.DEFAULT_CUDA].read_text()
    [cuda] = set(re.findall(r"^nvidia-cuda-runtime==(\d+\.\d+)", lock, re.M))
    tests = json.loads((REPO / ".runpod" / "tests.json").read_text(encoding="utf-8"))
    for config in (hub()["config"], tests["config"]):
        assert config["allowedCudaVersions"][0] == cuda


def test_image_variants_exist_and_are_released() -> None:
    text = (REPO / "docker-bake.hcl").read_text(encoding="utf-8")
    variants = dict(re.findall(r'name = "([\w-]+)", models = "([^"]*)"', text))
    assert list(variants) == [
        "base",
        "sd15",
        "sdxl",
        "flux-schnell",
        "flux-dev",
        "z-image",
        "qwen-image",
    ]
    sections = {
        entry.section for entry in parse_models((REPO / "models.txt").read_text(encoding="utf-8"))
    }
    assert {name for models in variants.values() for name in models.split()} <= sections
    assert variants["base"] == ""
    release = yaml.safe_load(
        (REPO / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    )
    assert release["jobs"]["image"]["strategy"]["matrix"]["variant"] == list(variants)
