"""What lies where: every folder that ComfyUI searches for models, and the files that are there.

Asks ComfyUI which folders it knows; knows nothing of what the files are good for.  Standard library only.
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

# What ComfyUI takes for a model file.
SUFFIXES = {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf"}
ASK = paths.CUSTOM_NODES / "comfy_worker_nodes" / "roots.py"
ASK_TIMEOUT_S = 60


def model_folders(comfyui: Path, roots: Sequence[Path]) -> dict[str, list[Path]]:
    """Ask ComfyUI which folders it searches, by kind of model, first to last; they need not be there.

    Args:
        comfyui: where it lies.
        roots: the worker's model roots.

    Returns:
        By `checkpoints`, `loras` ...; where there is no ComfyUI to ask, whatever folders the first root has.
    """
    listed = os.pathsep.join(map(str, roots))
    environ = {**public_variables(os.environ), "COMFY_WORKER_MODEL_ROOTS": listed}
    try:
        asked = subprocess.run(
            [sys.executable, "-B", ASK], cwd=comfyui, env=environ, capture_output=True, timeout=ASK_TIMEOUT_S
        )
        known = json.loads(asked.stdout)
        return {name: [Path(folder) for folder in folders] for name, folders in known.items()}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        found: dict[str, list[Path]] = {}
        for root in filter(Path.is_dir, (comfyui / "models", *roots[:1])):
            for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != "."):
                found.setdefault(folder.name, []).append(folder)
        return found


def model_files(folders: Mapping[str, Sequence[Path]]) -> dict[str, dict[Path, list[Path]]]:
    """Find the model files.

    Args:
        folders: as :func:`model_folders` says.

    Returns:
        Files by kind and folder, both without those that have none; a file that another kind's folder holds too
        stands in both.
    """
    found: dict[str, dict[Path, list[Path]]] = {}
    for kind, searched in sorted(folders.items()):
        for folder in dict.fromkeys(searched):
            tops = os.walk(folder, followlinks=True)
            files = [Path(top, name) for top, _folders, names in tops for name in sorted(names)]
            if models := [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]:
                found.setdefault(kind, {})[folder] = models
    return found


def where(files: Mapping[Path, Sequence[Path]]) -> str:
    """Say in which folders files lie.

    Args:
        files: by folder.

    Returns:
        "/a/loras (2), /b/loras (1)".
    """
    return ", ".join(f"{folder} ({len(found)})" for folder, found in files.items())
