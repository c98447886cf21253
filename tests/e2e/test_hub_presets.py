"""A preset of RunPod's Hub: the worker downloads its models when it starts, and uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.tools.make_tables import hub_presets
from tests import placeholders
from tests.e2e.conftest import pictures, serving
from tests.hub_server import hub_server

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

FILE = "stabilityai/stable-diffusion-xl-base-1.0/sd_xl_base_1.0.safetensors"
SMALL = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2}


@pytest.mark.parametrize("warmup", ["sdxl", ""], ids=["warm", "cold"])
def test_a_preset_downloads_its_checkpoint(warmup: str, model_root: Path, tmp_path: Path) -> None:
    [preset] = [preset for preset in hub_presets() if preset["name"].startswith("SDXL")]
    environ = {key: str(value) for key, value in preset["defaults"].items()}
    (tmp_path / "models").mkdir()
    settings = {
        **environ,
        "WARMUP": warmup,
        "MODELS_CACHE_DIR": str(tmp_path / "cache"),
        "ALLOW_PRIVATE_URLS": "true",
        "MIN_FREE_MEMORY_MB": "0",
    }
    with hub_server() as hub:
        hub.files[FILE] = (model_root / "checkpoints" / placeholders.CHECKPOINT).read_bytes()
        settings["HF_ENDPOINT"] = hub.url
        with serving(tmp_path / "models", tmp_path, **settings) as client:
            result = client.output(SMALL)
            log = (tmp_path / "worker.log").read_text()
    assert result["parameters"]["checkpoint"] == "sd_xl_base_1.0.safetensors"
    assert len(pictures(result)) == 1
    assert len(hub.served()) == 1
    assert ("action=warm_up.done" in log) == bool(warmup)
