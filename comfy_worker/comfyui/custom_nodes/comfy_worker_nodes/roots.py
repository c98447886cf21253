"""Which folders hold which kind of model: ComfyUI's own answer, with the worker's model roots added.

Every folder that this ComfyUI keeps under its own ``models`` (``loras``, ``unet`` and ``diffusion_models``, a node
pack's ``ultralytics/bbox`` ...) is looked for under each root too, in order, in any case, and under the name that
AUTOMATIC1111's web UI has for it. Which folders there are is asked of ComfyUI, not listed here. Called as a
program in ComfyUI's folder it prints the answer, without starting ComfyUI: then node packs have not added theirs.
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
    """The folders of one kind of model under a root: as ComfyUI writes them, then those that are there besides."""
    if not kept:
        return []
    wanted = [root / folder for folder in kept]
    written = {str(folder).lower() for folder in kept}
    beside = [entry for entry in _folders(root) if entry.name.lower() in written and entry not in wanted]
    beside += [root / folder for folder in A1111.get(name, ()) if _is_a1111(root) and (root / folder).is_dir()]
    return [*wanted, *(Path(os.path.normpath(folder)) for folder in beside)]


def _is_a1111(root: Path) -> bool:
    return (root / "Stable-diffusion").is_dir()


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []


def roots_given() -> list[str]:
    """The worker's model roots, which it hands over in the environment."""
    return [root for root in os.environ.get("COMFY_WORKER_MODEL_ROOTS", "").split(os.pathsep) if root]


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    import folder_paths

    add_model_roots(roots_given())
    known = folder_paths.folder_names_and_paths.items()
    print(json.dumps({name: list(folders) for name, (folders, _extensions) in known if name != "custom_nodes"}))
