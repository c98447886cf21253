"""RunPod's Hub shows every setting as declared; the image's variants name sections that exist.

The schemas say what RunPod's publishing guide says. RunPod publishes no schema of its own.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from comfy_common.models_txt import parse_models
from comfy_common.paths import REPO
from comfy_setup import packages
from comfy_worker.planning.templates import Templates
from comfy_worker.settings import Settings
from comfy_worker.warm_up import STAND_INS
from docs.tools import make_tables

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
CUDA_VERSIONS = {"type": "array", "items": {"type": "string", "pattern": r"^\d+\.\d+$"}}


def thing(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


OPTION = thing({"label": TEXT, "value": TEXT})
INPUT = thing(
    {"name": TEXT, "type": {"enum": ["string", "number", "boolean", "huggingface"]}},
    {
        "description": TEXT,
        "default": {"type": ["string", "number", "boolean"]},
        "advanced": {"type": "boolean"},
        "options": {"type": "array", "items": OPTION},
        "min": NUMBER,
        "max": NUMBER,
        "trueValue": TEXT,
        "falseValue": TEXT,
    },
)
HUB_CONFIG = thing(
    {
        "runsOn": {"enum": ["GPU", "CPU"]},
        "containerDiskInGb": {"type": "integer"},
        "gpuCount": {"type": "integer"},
        "gpuIds": TEXT,
    },
    {
        "allowedCudaVersions": CUDA_VERSIONS,
        "presets": {
            "type": "array",
            "items": thing({"name": TEXT, "defaults": {"type": "object"}}),
        },
        "env": {"type": "array", "items": thing({"key": TEXT, "input": INPUT})},
    },
)
HUB = thing(
    {
        "title": TEXT,
        "description": TEXT,
        "type": {"const": "serverless"},
        "category": {"enum": ["audio", "embedding", "language", "video", "image"]},
        "config": HUB_CONFIG,
    },
    {"iconUrl": TEXT},
)
TEST = thing({"name": TEXT, "input": {"type": "object"}}, {"timeout": {"type": "integer"}})
TESTS_CONFIG = thing(
    {"gpuTypeId": TEXT, "gpuCount": {"type": "integer"}},
    {
        "env": {"type": "array", "items": thing({"key": TEXT, "value": TEXT})},
        "allowedCudaVersions": CUDA_VERSIONS,
    },
)
TESTS = thing({"tests": {"type": "array", "items": TEST, "minItems": 1}, "config": TESTS_CONFIG})


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


@pytest.mark.parametrize(("name", "schema"), [("hub.json", HUB), ("tests.json", TESTS)])
def test_the_files_follow_runpods_guide(name: str, schema: dict[str, Any]) -> None:
    file = json.loads((REPO / ".runpod" / name).read_text(encoding="utf-8"))
    jsonschema.validate(file, schema, cls=jsonschema.Draft202012Validator)


def test_presets_are_valid_settings() -> None:
    assert hub()["config"]["presets"] == make_tables.hub_presets()
    templates = Templates([REPO / "workflows"])
    known = {entry["key"] for entry in hub()["config"]["env"]}
    names = []
    for preset in hub()["config"]["presets"]:
        names.append(preset["name"])
        environ = {key: str(value).lower() for key, value in preset["defaults"].items()}
        assert environ.keys() <= known
        settings = Settings.from_env({**environ, "WARMUP": preset["defaults"]["WARMUP"]})
        if not settings.warmup:
            continue
        params = templates.load(settings.warmup).params
        assert set(params.required) <= STAND_INS.keys()
        assert all(need.url for need in params.needs)
        size_gb = make_tables.template_bytes(settings.warmup) / 1e9
        assert 0 < size_gb < settings.models_cache_gb < hub()["config"]["containerDiskInGb"]
    assert len(set(names)) == len(names) == len(make_tables.HUB_TEMPLATES) + 1


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
