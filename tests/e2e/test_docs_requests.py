"""Every example request of the docs runs; only hosts, names of models and sizes differ.

Those for templates that this ComfyUI is too old for are planned on the nodes of ComfyUI 0.33.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_common.paths import REPO
from tests import pictures as test_pictures
from tests import placeholders
from tests.e2e.conftest import Client, serving
from tests.s3 import BUCKET, SECRET, Service, s3_service
from tests.template_plans import LORA, TEMPLATES, plan_of

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

PAGES = ("requests", "migrate")
# The names of models in the docs -> the placeholders in their place.
MODELS = {
    "checkpoints/dreamshaper.safetensors": f"checkpoints/{placeholders.CHECKPOINT}",
    "loras/pixel-art.safetensors": f"loras/{placeholders.LORA}",
    "loras/detail.safetensors": f"loras/{placeholders.LORA_B}",
}
PHOTO = base64.b64encode(test_pictures.file(test_pictures.photo((64, 64)))).decode()


def is_planned(request_body: dict[str, Any]) -> bool:
    """Whether a request names a template; placeholders stand in only for the default ones."""
    return request_body["input"].get("workflow") in TEMPLATES.names()


def examples(*, planned: bool) -> list[Any]:
    """The JSON blocks of the pages that are planned, or that run, with page and number."""
    found = []
    for page in PAGES:
        text = (REPO / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"```json\n(.*?)```", text, re.DOTALL), start=1):
            body = json.loads(block)
            if is_planned(body) == planned:
                found.append(pytest.param(body, id=f"{page}-{number}"))
    return found


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with s3_service(tmp_path_factory.mktemp("s3") / "log") as service:
        yield service


@pytest.fixture(scope="module")
def client(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A worker with models of the names that the docs use."""
    folder = tmp_path_factory.mktemp("docs")
    root = folder / "models"
    shutil.copytree(model_root, root, copy_function=lambda a, b: Path(b).symlink_to(a))
    for name, placeholder in MODELS.items():
        (root / name).symlink_to(model_root / placeholder)
    with serving(root, folder, ALLOW_PRIVATE_URLS="true") as started:
        yield started


def with_pictures(value: Any) -> Any:
    """The request with a picture in place of each URL of one."""
    if isinstance(value, list):
        return [with_pictures(entry) for entry in value]
    if isinstance(value, dict):
        return {key: with_pictures(entry) for key, entry in value.items()}
    is_picture = isinstance(value, str) and re.fullmatch(r"https://example\.com/\w+\.png", value)
    return PHOTO if is_picture else value


def make_small(job_input: dict[str, Any]) -> None:
    """Ask for few pixels and steps, in the words that the request uses."""
    if "num_inference_steps" in job_input:
        job_input["num_inference_steps"] = 2
    elif isinstance(job_input.get("prompt"), str) and "workflow" not in job_input:
        job_input["steps"] = 2
    if "size" in job_input:
        job_input["size"] = "64*64"
    elif not {"workflow", "image"} & job_input.keys() and isinstance(job_input["prompt"], str):
        job_input |= {"width": 64, "height": 64}
    workflow = job_input.get("workflow", job_input.get("prompt"))
    if isinstance(workflow, str):
        return
    for node in workflow.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": 64, "height": 64}


@pytest.mark.parametrize("request_body", examples(planned=True))
def test_the_example_is_planned(request_body: dict[str, Any]) -> None:
    job_input = request_body["input"]
    for entry in job_input.get("loras", []):
        entry["name"] = LORA
    with plan_of(job_input) as plan:
        assert plan.name == job_input["workflow"]
        assert [finding["type"] for finding in plan.findings] == []


@pytest.mark.parametrize("request_body", examples(planned=False))
def test_the_example_runs(client: Client, storage: Service, request_body: dict[str, Any]) -> None:
    body = with_pictures(request_body)
    job_input = body["input"]
    make_small(job_input)
    body.pop("webhook", None)  # tests/e2e/test_endpoint.py calls webhooks
    if "s3Config" in body:
        body["s3Config"] |= {
            "endpointUrl": storage.proxy.url,
            "bucketName": BUCKET,
            "accessId": "AKIA",
            "accessSecret": SECRET,
        }
    job = client.post("runsync?wait=280000", body)
    assert job["status"] == "COMPLETED", job
    output = job["output"]
    if job_input.get("validate_only"):
        assert output["findings"] == []
    elif "size" in job_input:
        assert output["image_url"].startswith("data:image/jpeg")
    elif "api_name" in job_input:
        assert output["images"]
    else:
        expected = "s3_url" if "s3Config" in body else "base64"
        assert {image["type"] for image in output["images"]} == {expected}
