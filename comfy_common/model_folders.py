"""Finds the folders that ComfyUI searches for models, and the model files in them.

ComfyUI itself says which folders it searches. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfy_common import paths
from comfy_common.environment import public_variables
from comfy_common.hub_cache import MODEL_FOLDERS

# The suffixes of the files that ComfyUI treats as models.
SUFFIXES = {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf"}
# Names of folders that ComfyUI still searches, with the names that it gives them now.
OLD_NAMES = {"unet": "diffusion_models", "clip": "text_encoders", "t2i_adapter": "controlnet"}
ASK = paths.CUSTOM_NODES / "comfy_worker_nodes" / "roots.py"
ASK_TIMEOUT_S = 60


def model_folders(comfyui: Path, roots: Sequence[Path]) -> dict[str, list[Path]]:
    """Ask ComfyUI which folders it searches for each model folder name, in order of search.

    Args:
        comfyui: the folder of ComfyUI.
        roots: the worker's model roots.

    Returns:
        By `checkpoints`, `loras` ...; the folders may be missing. If ComfyUI cannot be asked, the
        folders that exist in its `models` and in the roots.
    """
    listed = os.pathsep.join(map(str, roots))
    environ = {**public_variables(os.environ), "COMFY_WORKER_MODEL_ROOTS": listed}
    command: list[str | Path] = [sys.executable, "-B", ASK]
    try:
        finished = subprocess.run(
            command, cwd=comfyui, env=environ, capture_output=True, timeout=ASK_TIMEOUT_S
        )
        answer = json.loads(finished.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return _existing_folders([comfyui / "models", *roots])
    searched: dict[str, list[Path]] = {}
    for name, folders in answer.items():
        searched[name] = [Path(folder) for folder in folders]
    return searched


def _existing_folders(roots: Sequence[Path]) -> dict[str, list[Path]]:
    """The folders in some roots that have names of ComfyUI's model folders."""
    found: dict[str, list[Path]] = {}
    for root in filter(Path.is_dir, roots):
        for folder in sorted(root.iterdir()):
            name = OLD_NAMES.get(folder.name, folder.name)
            # A root may be a whole volume, with all kinds of folders in it.
            if name in MODEL_FOLDERS and folder.is_dir():
                found.setdefault(name, []).append(folder)
    return found


def model_files(folders: Mapping[str, Sequence[Path]]) -> dict[str, dict[Path, list[Path]]]:
    """Find the model files.

    Args:
        folders: as :func:`model_folders` returns them.

    Returns:
        The files by model folder name and folder. Names and folders without files are left out. A
        file in a folder that belongs to two names is listed under both.
    """
    found: dict[str, dict[Path, list[Path]]] = {}
    for folder_name, searched in sorted(folders.items()):
        for folder in dict.fromkeys(searched):
            models = _models_below(folder)
            if models:
                found.setdefault(folder_name, {})[folder] = models
    return found


def _models_below(folder: Path) -> list[Path]:
    models = []
    for top, _folders, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            path = Path(top, name)
            if path.suffix.lower() in SUFFIXES and path.is_file():
                models.append(path)
    return models


def where(files: Mapping[Path, Sequence[Path]]) -> str:
    """List folders with the number of their files, as "/a/loras (2), /b/loras (1)".

    Args:
        files: by folder.
    """
    return ", ".join(f"{folder} ({len(found)})" for folder, found in files.items())
