"""The folders of a network volume, in the layouts that people have there, and what ComfyUI makes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_common import model_folders, paths
from comfy_setup import doctor

# A file in each layout, and the kind of model that ComfyUI must find it as.
LAYOUTS = {
    "models/checkpoints/a.safetensors": "checkpoints",
    "models/unet/a.safetensors": "diffusion_models",
    "models/diffusion_models/a.safetensors": "diffusion_models",
    "models/clip/a.safetensors": "text_encoders",
    "models/text_encoders/sub/a.safetensors": "text_encoders",
    "models/Loras/a.safetensors": "loras",
    "checkpoints/a.safetensors": "checkpoints",
    "ComfyUI/models/vae/a.safetensors": "vae",
    "comfyui/models/controlnet/a.safetensors": "controlnet",
    "runpod-slim/ComfyUI/models/upscale_models/a.safetensors": "upscale_models",
    "storage/stable_diffusion/models/loras/a.safetensors": "loras",
    "stable-diffusion-webui/models/Stable-diffusion/a.safetensors": "checkpoints",
    "stable-diffusion-webui/models/Lora/a.safetensors": "loras",
    "stable-diffusion-webui/models/VAE/a.safetensors": "vae",
    "stable-diffusion-webui/embeddings/a.safetensors": "embeddings",
}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "COMFYUI_DIR": str(paths.comfyui_dir(os.environ)),
        "MODELS_DIR": str(tmp_path / "own"),
        "VOLUME_DIR": str(tmp_path / "volume"),
        "MODELS_CACHE_DIR": str(tmp_path / "cache"),
    }


def found(environ: dict[str, str]) -> dict[str, list[Path]]:
    folders = model_folders.model_folders(paths.comfyui_dir(environ), paths.model_roots(environ))
    by_kind = model_folders.model_files(folders)
    return {
        folder: [path for files in by.values() for path in files] for folder, by in by_kind.items()
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_models_are_found_in_every_volume_layout(
    environ: dict[str, str], tmp_path: Path, name: str
) -> None:
    # The web UI's folder of checkpoints is what its layout is known by.
    if "webui" in name:
        touch(tmp_path / "volume" / "stable-diffusion-webui/models/Stable-diffusion/other.txt")
    path = touch(tmp_path / "volume" / name)
    assert found(environ) == {LAYOUTS[name]: [path]}
    findings = {finding.subject: finding for finding in doctor.examine(environ)}
    assert findings[LAYOUTS[name]].text.startswith("1 file, 0 kB: ")
    assert f"{tmp_path}/volume: models in " in findings["volume"].text


def test_the_roots_are_searched_in_order(environ: dict[str, str], tmp_path: Path) -> None:
    folders = [
        "own",
        "volume",
        "volume/models",
        "volume/ComfyUI/models",
        "volume/x/models",
        "cache",
    ]
    wanted = [touch(tmp_path / folder / "loras" / "a.safetensors") for folder in folders]
    assert found(environ)["loras"] == wanted


def test_a_missing_or_empty_volume_is_reported(environ: dict[str, str], tmp_path: Path) -> None:
    def volume() -> doctor.Finding:
        return next(finding for finding in doctor.examine(environ) if finding.subject == "volume")

    assert volume() == doctor.Finding("volume", "ok", f"none at {tmp_path}/volume")
    (tmp_path / "volume").mkdir()
    assert volume().level == "note"
    assert (
        f"nothing that a job can use; put models into {tmp_path}/volume/models/checkpoints"
        in volume().text
    )
    touch(tmp_path / "volume" / "ComfyUI" / "custom_nodes" / "pack.py")
    touch(tmp_path / "volume" / "ComfyUI" / "user" / "default" / "workflows" / "mine.json")
    assert f"workflows in {tmp_path}/volume/ComfyUI/user/default/workflows" in volume().text
    assert f"node packs in {tmp_path}/volume/ComfyUI/custom_nodes" in volume().text


def test_without_comfyui_all_roots_are_searched(environ: dict[str, str], tmp_path: Path) -> None:
    own = touch(tmp_path / "own" / "loras" / "a.safetensors")
    other = touch(tmp_path / "volume" / "models" / "loras" / "b.safetensors")
    without = {**environ, "COMFYUI_DIR": str(tmp_path / "nowhere")}
    assert found(without) == {"loras": [own, other]}
