"""RunPod's Hub is told of every setting as it is declared, and the image's variants name sections that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from comfy_common.paths import REPO
from comfy_setup import packages
from comfy_setup.models import parse_models
from comfy_worker.settings import Settings

ACRONYMS = {
    "api": "API",
    "gb": "(GB)",
    "hf": "HF",
    "s": "(seconds)",
    "mb": "(MB)",
    "sd": "SD",
    "url": "URL",
    "urls": "URLs",
    "comfyui": "ComfyUI",
}
# What a user of the Hub is asked first; the rest is behind "Advanced".
BASIC = {
    "SD_MODEL",
    "HF_TOKEN",
    "BUCKET_ENDPOINT_URL",
    "BUCKET_ACCESS_KEY_ID",
    "BUCKET_SECRET_ACCESS_KEY",
    "BUCKET_NAME",
}


def hub_env() -> list[dict[str, Any]]:
    """What hub.json says of the settings; `python -m tests.unit.test_hub_json` writes it there."""
    properties = Settings.model_json_schema()["properties"]
    return [{"key": key, "input": _input(key, declared)} for key, declared in properties.items()]


def _input(key: str, declared: dict[str, Any]) -> dict[str, Any]:
    words = [ACRONYMS.get(word, word) for word in key.lower().split("_")]
    entry = {
        "name": words[0][0].upper() + " ".join(words)[1:],
        "type": "string",
        "description": declared["description"],
        "default": "",
        "advanced": key not in BASIC,
    }
    default = declared.get("default")
    kinds = {option.get("type") for option in declared.get("anyOf", [declared])}
    if kinds == {"boolean"}:
        entry |= {"type": "boolean", "default": default, "trueValue": "true", "falseValue": "false"}
    elif kinds <= {"integer", "number"}:
        least = declared.get("minimum", declared.get("exclusiveMinimum"))
        entry |= {"type": "number", "default": default, "min": least}
        entry |= {"max": declared["maximum"]} if "maximum" in declared else {}
    elif "boolean" in kinds:  # or not set
        entry["options"] = [{"label": value or "not set", "value": value} for value in ("", "true", "false")]
    elif "enum" in declared:
        entry["default"] = default
        entry["options"] = [{"label": value or "not set", "value": value} for value in declared["enum"]]
    elif isinstance(default, str):
        entry["default"] = default
    return entry


def hub() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPO / ".runpod" / "hub.json").read_text(encoding="utf-8"))
    return read


def test_the_hub_knows_every_setting() -> None:
    assert hub()["config"]["env"] == hub_env(), "call `python -m tests.unit.test_hub_json`"


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


if __name__ == "__main__":
    config = hub()
    config["config"]["env"] = hub_env()
    (REPO / ".runpod" / "hub.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
