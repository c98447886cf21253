"""Where things lie: the repository, its virtual environment, ComfyUI, the folders that hold models.

The one home of what `comfy_setup` and `comfy_worker` both need.  Standard library only; nothing is read at import,
and it knows nothing of what is done with these places.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

REPO = Path(__file__).absolute().parent.parent
VENV = REPO / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
CACHE = REPO / ".cache"
OUTPUT = REPO / "output"
CUSTOM_NODES = REPO / "comfy_worker" / "comfyui" / "custom_nodes"
NODE_PACKS = REPO / "custom_nodes"
RUNPOD_VOLUME = Path("/runpod-volume")


def comfyui_dir(environ: Mapping[str, str]) -> Path:
    """Say where ComfyUI lies.

    Args:
        environ: `COMFYUI_DIR` names a ComfyUI that is already there.

    Returns:
        An absolute path; nothing need be there yet.
    """
    chosen = environ.get("COMFYUI_DIR", "")
    return Path(chosen).expanduser().absolute() if chosen else REPO / ".comfyui"


def volume_dir(environ: Mapping[str, str]) -> Path:
    """Say where the network volume is mounted; nothing need be there.

    Args:
        environ: `VOLUME_DIR` names another place than RunPod's own.
    """
    return Path(environ.get("VOLUME_DIR", "") or RUNPOD_VOLUME).expanduser().absolute()


def models_cache_dir(environ: Mapping[str, str]) -> Path:
    """Say where models lie that were fetched because a job asked for them; it need not be there.

    Args:
        environ: `MODELS_CACHE_DIR` names another place than the repository's own cache.
    """
    return Path(environ.get("MODELS_CACHE_DIR", "") or CACHE / "models").expanduser().absolute()


def models_dir(environ: Mapping[str, str]) -> Path:
    """Say which folder models are put into; it need not be there.

    Args:
        environ: `MODELS_DIR` stands in for the repository's own `models`.
    """
    chosen = environ.get("MODELS_DIR", "")
    return Path(chosen).expanduser().absolute() if chosen else REPO / "models"


def model_roots(environ: Mapping[str, str]) -> list[Path]:
    """Say which folders hold models, each with ComfyUI's sub-folders (`checkpoints`, `loras`, ...).

    ComfyUI's own `models` folder is not among them: ComfyUI knows it already.

    Args:
        environ: `MODELS_DIR` stands in for the repository's own `models`; the rest as above.

    Returns:
        Absolute paths: the one to write to (it need not be there yet), those of the network volume that exist, and
        the cache.
    """
    volume = volume_model_roots(volume_dir(environ))
    return [models_dir(environ), *volume, models_cache_dir(environ)]


def volume_model_roots(volume: Path) -> list[Path]:
    """Say which folders of a network volume may hold models, in any of the layouts that people have there.

    Args:
        volume: where it is mounted.

    Returns:
        Those that exist: the volume itself, and every folder `models` on it, up to two folders deep; those of a
        ComfyUI first.
    """
    if not volume.is_dir():
        return []
    deep = [path for pattern in ("*/models", "*/*/models") for path in _folders(volume, pattern)]
    ours = [root / "models" for root in _comfyuis(volume)]
    return list(dict.fromkeys([volume, *_folders(volume, "models"), *(o for o in ours if o in deep), *deep]))


def workflow_folders(volume: Path) -> list[Path]:
    """Say which folders hold named templates: the worker's own, then those of the network volume.

    Args:
        volume: where it is mounted; nothing need be there.
    """
    places = [root / part for root in _comfyuis(volume) for part in ("workflows", "user/default/workflows")]
    return [REPO / "workflows", volume / "workflows", *places]


def custom_node_folders(volume: Path) -> list[Path]:
    """Say which folders hold node packs beside ComfyUI's own: of custom_nodes.txt, then of the network volume.

    Args:
        volume: where it is mounted; nothing need be there.

    Returns:
        Absolute paths that exist; the worker's own nodes last, so that they see which model folders others add.
    """
    places = [NODE_PACKS, *(root / "custom_nodes" for root in (volume, *_comfyuis(volume))), CUSTOM_NODES]
    return [folder for folder in places if folder.is_dir()]


def _comfyuis(volume: Path) -> list[Path]:
    """A ComfyUI that a pod left on the volume, perhaps in a folder of its own as RunPod's templates do."""
    found = [path for pattern in ("*", "*/*") for path in _folders(volume, pattern)]
    return [path for path in found if path.name.lower() == "comfyui"]


def _folders(volume: Path, pattern: str) -> list[Path]:
    return sorted(path for path in volume.glob(pattern) if path.is_dir())
