"""The paths of the repository, its virtual environment, ComfyUI, models, templates and node packs.

Standard library only. Nothing is read from the disk at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from comfy_common import hub_cache

REPO = Path(__file__).absolute().parent.parent
VENV = REPO / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
CACHE = REPO / ".cache"
OUTPUT = REPO / "output"
CUSTOM_NODES = REPO / "comfy_worker" / "comfyui" / "custom_nodes"
NODE_PACKS = REPO / "custom_nodes"
RUNPOD_VOLUME = Path("/runpod-volume")
# Where RunPod puts the repository that an endpoint names as its model.
VOLUME_HUB_CACHE = Path("huggingface-cache/hub")


def comfyui_dir(environ: Mapping[str, str]) -> Path:
    """The folder of ComfyUI, as an absolute path. It may be missing.

    Args:
        environ: `COMFYUI_DIR` names a ComfyUI that the user has installed.
    """
    chosen = environ.get("COMFYUI_DIR", "")
    return Path(chosen).expanduser().absolute() if chosen else REPO / ".comfyui"


def volume_dir(environ: Mapping[str, str]) -> Path:
    """The folder where the network volume is mounted. It may be missing.

    Args:
        environ: `VOLUME_DIR` names another folder than RunPod's own.
    """
    return Path(environ.get("VOLUME_DIR", "") or RUNPOD_VOLUME).expanduser().absolute()


def models_cache_dir(environ: Mapping[str, str]) -> Path:
    """The folder for models that are downloaded for jobs. It may be missing.

    Args:
        environ: `MODELS_CACHE_DIR` names another folder than the repository's own cache.
    """
    return Path(environ.get("MODELS_CACHE_DIR", "") or CACHE / "models").expanduser().absolute()


def models_dir(environ: Mapping[str, str]) -> Path:
    """The folder into which models are installed. It may be missing.

    Args:
        environ: `MODELS_DIR` replaces the repository's own `models`.
    """
    chosen = environ.get("MODELS_DIR", "")
    return Path(chosen).expanduser().absolute() if chosen else REPO / "models"


def hub_caches(environ: Mapping[str, str]) -> list[Path]:
    """The caches of Hugging Face: RunPod's on the network volume, then the user's own.

    Args:
        environ: may hold `VOLUME_DIR`, and where the user's cache is, as Hugging Face's own library
            reads it: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`.

    Returns:
        The folders `hub` of the caches. They may be missing.
    """
    own = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    if not own:
        home = environ.get("HF_HOME")
        if not home:
            user_cache = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME') or '~'}/.cache"
            home = f"{user_cache}/huggingface"
        own = f"{home}/hub"
    # Only a shell replaces "~". Without a home folder it stays, and the cache is missing.
    written = Path(own).expanduser() if environ.get("HOME") else Path(own)
    volume_cache = volume_dir(environ) / VOLUME_HUB_CACHE
    return list(dict.fromkeys([volume_cache, written.absolute()]))


def model_roots(environ: Mapping[str, str]) -> list[Path]:
    """The folders with models, each with ComfyUI's subfolders (`checkpoints`, `loras`, ...).

    ComfyUI's own `models` folder is not listed, since ComfyUI searches it anyway.

    Args:
        environ: may hold `MODELS_DIR`, `VOLUME_DIR`, `MODELS_CACHE_DIR` and what
            :func:`hub_caches` reads.

    Returns:
        Absolute paths: the folder into which models are installed (it may be missing), the existing
        folders of the network volume, those of caches of Hugging Face, and the worker's cache.
    """
    volume = volume_model_roots(volume_dir(environ))
    cached = hub_cache.model_roots(hub_cache.snapshots(hub_caches(environ)))
    return [models_dir(environ), *volume, *cached, models_cache_dir(environ)]


def volume_model_roots(volume: Path) -> list[Path]:
    """The folders of a network volume that may contain models, in all common layouts.

    Args:
        volume: where the volume is mounted.

    Returns:
        The existing folders: the volume itself, and every folder `models` on it, up to two folders
        deep. Those of a ComfyUI come first.
    """
    if not volume.is_dir():
        return []
    deep = [*_folders(volume, "*/models"), *_folders(volume, "*/*/models")]
    of_comfyui = [root / "models" for root in _comfyuis(volume) if root / "models" in deep]
    return list(dict.fromkeys([volume, *_folders(volume, "models"), *of_comfyui, *deep]))


def workflow_folders(volume: Path) -> list[Path]:
    """The folders with templates: the worker's own, then those of the network volume.

    Args:
        volume: where the volume is mounted; it may be missing.
    """
    folders = [REPO / "workflows", volume / "workflows"]
    for root in _comfyuis(volume):
        folders += [root / "workflows", root / "user/default/workflows"]
    return folders


def custom_node_folders(volume: Path) -> list[Path]:
    """The folders with node packs beside ComfyUI's own: of custom_nodes.txt, then of the volume.

    Args:
        volume: where the volume is mounted; it may be missing.

    Returns:
        The existing folders, as absolute paths. The worker's own nodes are last, so that they see
        which model folders other packs add.
    """
    roots = [volume, *_comfyuis(volume)]
    folders = [NODE_PACKS, *(root / "custom_nodes" for root in roots), CUSTOM_NODES]
    return [folder for folder in folders if folder.is_dir()]


def _comfyuis(volume: Path) -> list[Path]:
    """The ComfyUIs that pods have left on the volume, up to two folders deep."""
    folders = [*_folders(volume, "*"), *_folders(volume, "*/*")]
    return [folder for folder in folders if folder.name.lower() == "comfyui"]


def _folders(volume: Path, pattern: str) -> list[Path]:
    return sorted(path for path in volume.glob(pattern) if path.is_dir())
