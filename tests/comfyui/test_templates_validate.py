"""The shipped templates against ComfyUI's own validation, with stand-ins for the models that they need."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_setup.paths import comfyui_dir
from tests import shipped
from tests.frontend import running_comfyui

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def comfyui_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a ComfyUI that has every needed file by name.

    The stand-ins are empty, and validation reads no more than names: a prompt that is accepted fails at its first
    loader, so nothing is sampled.
    """
    models: Path = tmp_path_factory.mktemp("models")
    needs = [need for name in shipped.NAMES for need in shipped.params(name)["needs"]]
    for need in needs:
        (models / need["folder"]).mkdir(exist_ok=True)
        (models / need["folder"] / need["file"]).touch()
    folders = {need["folder"]: need["folder"] for need in needs}
    config = models / "extra_model_paths.yaml"
    config.write_text(json.dumps({"stand_ins": {"base_path": str(models), **folders}}), encoding="utf-8")
    with running_comfyui(comfyui_dir(os.environ), config) as url:
        yield url


def queue_prompt(url: str, workflow: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"prompt": workflow}).encode()
    request = urllib.request.Request(f"{url}/prompt", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            answer = json.load(error)
    return answer


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_template_is_accepted_as_it_is(comfyui_url: str, name: str) -> None:
    answer = queue_prompt(comfyui_url, shipped.graph(name))
    assert "prompt_id" in answer, answer
    assert answer["node_errors"] == {}


def test_a_template_whose_model_is_missing_is_refused(comfyui_url: str) -> None:
    workflow = shipped.graph("txt2img")
    workflow["1"]["inputs"]["ckpt_name"] = "absent.safetensors"
    answer = queue_prompt(comfyui_url, workflow)
    assert [error["type"] for error in answer["node_errors"]["1"]["errors"]] == ["value_not_in_list"]
