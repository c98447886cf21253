"""Adds the worker's model roots to the folders that ComfyUI searches for models.

ComfyUI knows the folders under its own ``models``: ``loras``, ``unet`` and ``diffusion_models``, a
node pack's ``ultralytics/bbox`` ... Each of them is also searched under every root, in order, in
upper or lower case, and under the name that AUTOMATIC1111's web UI uses.

Run as a program in ComfyUI's folder, this module prints all folders without starting ComfyUI. The
folders of node packs are then missing.
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
    """Return the folders under a root: ComfyUI's names, then other spellings that exist."""
    if not kept:
        return []
    regular = [root / folder for folder in kept]
    names = {str(folder).lower() for folder in kept}
    respelled = [entry for entry in _folders(root) if entry.name.lower() in names]
    others = [folder for folder in respelled if folder not in regular]
    if _is_a1111(root):
        candidates = [root / folder for folder in A1111.get(name, ())]
        others += [folder for folder in candidates if folder.is_dir()]
    if "snapshots" in root.parts:
        # A cache of Hugging Face gets no further files while ComfyUI runs.
        regular = [folder for folder in regular if folder.is_dir()]
    return [*regular, *(Path(os.path.normpath(folder)) for folder in others)]


def _is_a1111(root: Path) -> bool:
    return (root / "Stable-diffusion").is_dir()


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if entry.is_dir())


def roots_of_worker() -> list[str]:
    """Return the worker's model roots, from the environment."""
    roots = os.environ.get("COMFY_WORKER_MODEL_ROOTS", "").split(os.pathsep)
    return [root for root in roots if root]


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    import folder_paths

    add_model_roots(roots_of_worker())
    found = {}
    for folder_name, (folders, _extensions) in folder_paths.folder_names_and_paths.items():
        if folder_name != "custom_nodes":
            found[folder_name] = list(folders)
    print(json.dumps(found))
