"""Every stand-in and every placeholder is identified by its header."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_worker.models.detect import FAMILIES, Kind, ModelKind, identify
from tests import comfyui_shapes, placeholders, standins

pytestmark = pytest.mark.comfyui


@pytest.mark.parametrize(("model", "family"), standins.FAMILIES.items())
def test_a_model_as_comfyui_builds_it_is_identified(tmp_path: Path, model: str, family: str) -> None:
    path = tmp_path / "model.safetensors"
    standins.write_standin(path, model)
    kind: Kind = "checkpoint" if model in comfyui_shapes.CHECKPOINTS else "diffusion_model"
    inpaint = model.endswith(("-inpaint", "-fill"))
    assert identify(path) == ModelKind(kind, FAMILIES[family], inpaint=inpaint)


def test_a_stand_in_takes_little_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    standins.write_standin(path, "qwen-image")
    assert path.stat().st_size > 40e9
    assert path.stat().st_blocks * 512 < 4e6


@pytest.mark.parametrize("family", standins.LORA_FAMILIES)
def test_a_lora_stand_in_is_identified(tmp_path: Path, family: str) -> None:
    path = tmp_path / "lora.safetensors"
    standins.write_lora_standin(path, family)
    assert identify(path) == ModelKind("lora", FAMILIES[family])


@pytest.mark.parametrize("union", [False, True])
@pytest.mark.parametrize("family", standins.CONTROLNET_FAMILIES)
def test_a_controlnet_stand_in_is_identified(tmp_path: Path, family: str, union: bool) -> None:
    path = tmp_path / "controlnet.safetensors"
    standins.write_controlnet_standin(path, family, union=union)
    assert identify(path) == ModelKind("controlnet", FAMILIES[family], union=union)


PLACEHOLDERS = {
    f"checkpoints/{placeholders.CHECKPOINT}": ModelKind("checkpoint", FAMILIES["sd15"]),
    f"checkpoints/{placeholders.CHECKPOINT_INPAINT}": ModelKind("checkpoint", FAMILIES["sd15"], inpaint=True),
    f"checkpoints/{placeholders.CHECKPOINT_SDXL}": ModelKind("checkpoint", FAMILIES["sdxl"]),
    # Its width follows from its one block, and belongs to no SD 3 that there is.
    f"checkpoints/{placeholders.CHECKPOINT_SD3}": ModelKind("checkpoint"),
    f"loras/{placeholders.LORA}": ModelKind("lora", FAMILIES["sd15"]),
    f"loras/{placeholders.LORA_B}": ModelKind("lora", FAMILIES["sd15"]),
    f"loras/{placeholders.LORA_MODEL_ONLY}": ModelKind("lora", FAMILIES["sd15"]),
    f"loras/{placeholders.LORA_SDXL}": ModelKind("lora", FAMILIES["sdxl"]),
    f"controlnet/{placeholders.CONTROLNET}": ModelKind("controlnet", FAMILIES["sd15"]),
    f"controlnet/{placeholders.CONTROLNET_B}": ModelKind("controlnet", FAMILIES["sd15"]),
    f"controlnet/{placeholders.CONTROLNET_UNION}": ModelKind("controlnet", FAMILIES["sd15"], union=True),
    f"embeddings/{placeholders.EMBEDDING}": ModelKind("unknown"),
    f"upscale_models/{placeholders.UPSCALER}": ModelKind("unknown"),
    f"diffusion_models/{placeholders.FLUX}": ModelKind("diffusion_model", FAMILIES["flux"]),
    f"diffusion_models/{placeholders.WAN}": ModelKind("diffusion_model", FAMILIES["wan21-1.3b"]),
    f"text_encoders/{placeholders.CLIP_L}": ModelKind("text_encoder"),
    f"vae/{placeholders.VAE_4}": ModelKind("vae"),
    f"vae/{placeholders.VAE_16}": ModelKind("vae"),
    f"vae/{placeholders.VAE_WAN}": ModelKind("unknown"),
}


def test_every_placeholder_is_identified(model_root: Path) -> None:
    assert {file: identify(model_root / file) for file in placeholders.WRITERS} == PLACEHOLDERS
