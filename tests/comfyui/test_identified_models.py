"""Every stand-in and every placeholder is identified by its header."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comfy_worker.models.detect import FAMILIES, ModelInfo, ModelType, identify
from tests import comfyui_shapes, placeholders, standins

pytestmark = pytest.mark.comfyui


@pytest.mark.parametrize(("model", "family"), standins.FAMILIES.items())
def test_a_model_as_comfyui_builds_it_is_identified(
    tmp_path: Path, model: str, family: str
) -> None:
    path = tmp_path / "model.safetensors"
    standins.write_standin(path, model)
    model_type: ModelType = (
        "checkpoint" if model in comfyui_shapes.CHECKPOINTS else "diffusion_model"
    )
    inpaint = model.endswith(("-inpaint", "-fill"))
    assert identify(path) == ModelInfo(model_type, FAMILIES[family], inpaint=inpaint)


def test_a_stand_in_takes_little_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    standins.write_standin(path, "qwen-image")
    assert path.stat().st_size > 40e9
    assert path.stat().st_blocks * 512 < 4e6


@pytest.mark.parametrize("family", standins.LORA_FAMILIES)
def test_a_lora_stand_in_is_identified(tmp_path: Path, family: str) -> None:
    path = tmp_path / "lora.safetensors"
    standins.write_lora_standin(path, family)
    assert identify(path) == ModelInfo("lora", FAMILIES[family])


@pytest.mark.parametrize("union", [False, True])
@pytest.mark.parametrize("family", standins.CONTROLNET_FAMILIES)
def test_a_controlnet_stand_in_is_identified(tmp_path: Path, family: str, union: bool) -> None:
    path = tmp_path / "controlnet.safetensors"
    standins.write_controlnet_standin(path, family, union=union)
    assert identify(path) == ModelInfo("controlnet", FAMILIES[family], union=union)


PLACEHOLDERS = {
    f"checkpoints/{placeholders.CHECKPOINT}": ModelInfo("checkpoint", FAMILIES["sd15"]),
    f"checkpoints/{placeholders.CHECKPOINT_INPAINT}": ModelInfo(
        "checkpoint", FAMILIES["sd15"], inpaint=True
    ),
    f"checkpoints/{placeholders.CHECKPOINT_SDXL}": ModelInfo("checkpoint", FAMILIES["sdxl"]),
    # Its width follows from its one block, and belongs to no SD 3 that there is.
    f"checkpoints/{placeholders.CHECKPOINT_SD3}": ModelInfo("checkpoint"),
    f"loras/{placeholders.LORA}": ModelInfo("lora", FAMILIES["sd15"]),
    f"loras/{placeholders.LORA_B}": ModelInfo("lora", FAMILIES["sd15"]),
    f"loras/{placeholders.LORA_MODEL_ONLY}": ModelInfo("lora", FAMILIES["sd15"]),
    f"loras/{placeholders.LORA_SDXL}": ModelInfo("lora", FAMILIES["sdxl"]),
    f"controlnet/{placeholders.CONTROLNET}": ModelInfo("controlnet", FAMILIES["sd15"]),
    f"controlnet/{placeholders.CONTROLNET_B}": ModelInfo("controlnet", FAMILIES["sd15"]),
    f"controlnet/{placeholders.CONTROLNET_UNION}": ModelInfo(
        "controlnet", FAMILIES["sd15"], union=True
    ),
    f"embeddings/{placeholders.EMBEDDING}": ModelInfo("unknown"),
    f"upscale_models/{placeholders.UPSCALER}": ModelInfo("unknown"),
    f"diffusion_models/{placeholders.FLUX}": ModelInfo("diffusion_model", FAMILIES["flux"]),
    f"diffusion_models/{placeholders.WAN}": ModelInfo("diffusion_model", FAMILIES["wan21-1.3b"]),
    f"diffusion_models/{placeholders.WAN_I2V}": ModelInfo(
        "diffusion_model", FAMILIES["wan21-1.3b"]
    ),
    # Its width belongs to no Flux.2 that there is.
    f"diffusion_models/{placeholders.FLUX2}": ModelInfo("diffusion_model"),
    f"loras/{placeholders.LORA_WAN}": ModelInfo("lora", FAMILIES["wan21-1.3b"]),
    f"vae/{placeholders.VAE_FLUX2}": ModelInfo("vae"),
    f"text_encoders/{placeholders.CLIP_L}": ModelInfo("text_encoder"),
    f"vae/{placeholders.VAE_4}": ModelInfo("vae"),
    f"vae/{placeholders.VAE_16}": ModelInfo("vae"),
    f"vae/{placeholders.VAE_WAN}": ModelInfo("unknown"),
}


def test_every_placeholder_is_identified(model_root: Path) -> None:
    found = {}
    for file in placeholders.WRITERS:
        info = identify(model_root / file)
        precision = "fp8" if file == f"checkpoints/{placeholders.CHECKPOINT}" else "fp16"
        assert (file, info.precision) == (file, precision)
        found[file] = replace(info, precision="")
    assert found == PLACEHOLDERS
