"""Adds the worker's model roots to the folders that ComfyUI searches for models.

ComfyUI says which folders it has under its own ``models``: ``loras``, ``unet`` and ``diffusion_models``, a node
pack's ``ultralytics/bbox`` ... Each of them is searched under every root too, in order, in upper or lower case,
and under the name that AUTOMATIC1111's web UI uses. As a program in ComfyUI's folder this module prints all
folders without starting ComfyUI; those of node packs are then missing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

A1111 = {
    "checkpoints": ("Stable-diffusion",),
    "loras": ("Lora", "LyCORIS"),
    "upscale_models": ("ESRGAN", "RealESRGAN", "SwinIR"),
    "embeddings": ("../embeddings",),
}


def add_model_roots(roots: list[str]) -> None:
    """Add each root's folders to those that ComfyUI searches."""
    import folder_paths

    own = Path(folder_paths.models_dir)
    for name, (folders, _extensions) in list(folder_paths.folder_names_and_paths.items()):
        kept = [Path(folder).relative_to(own) for folder in folders if own in Path(folder).parents]
        for root in map(Path, roots):
            for folder in found_under(root, name, kept):
                folder_paths.add_model_folder_path(name, str(folder))


def found_under(root: Path, name: str, kept: list[Path]) -> list[Path]:
    """The folders under a root: as ComfyUI writes them, then those with another spelling that exist."""
    if not kept:
        return []
    wanted = [root / folder for folder in kept]
    written = {str(folder).lower() for folder in kept}
    beside = [
        entry for entry in _folders(root) if entry.name.lower() in written and entry not in wanted
    ]
    if _is_a1111(root):
        candidates = [root / folder for folder in A1111.get(name, ())]
        beside += [folder for folder in candidates if folder.is_dir()]
    if "snapshots" in root.parts:
        # A cache of Hugging Face gets no further files while ComfyUI runs.
        wanted = [folder for folder in wanted if folder.is_dir()]
    return [*wanted, *(Path(os.path.normpath(folder)) for folder in beside)]


def _is_a1111(root: Path) -> bool:
    return (root / "Stable-diffusion").is_dir()


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if entry.is_dir())


def roots_of_worker() -> list[str]:
    """The worker's model roots, from the environment."""
    roots = os.environ.get("COMFY_WORKER_MODEL_ROOTS", "").split(os.pathsep)
    return [root for root in roots if root]


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    import folder_paths

    add_model_roots(roots_of_worker())
    known = folder_paths.folder_names_and_paths.items()
    print(
        json.dumps(
            {
                name: list(folders)
                for name, (folders, _extensions) in known
                if name != "custom_nodes"
            }
        )
    )
