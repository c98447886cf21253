"""What RunPod's Hub sends to an image that it has built: it has no model, and every job must end well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_common.paths import REPO
from tests.e2e.conftest import Client, pictures

pytestmark = pytest.mark.e2e

TESTS = json.loads((REPO / ".runpod" / "tests.json").read_text(encoding="utf-8"))["tests"]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test["name"])
def test_hub_tests_pass_without_a_model(worker: Client, test: dict[str, Any]) -> None:
    loaders = [
        node for node in test["input"]["workflow"].values() if "Loader" in node["class_type"]
    ]
    assert loaders == []
    [picture] = pictures(worker.output(test["input"]))
    assert picture.size in {(64, 64), (1024, 1024)}
