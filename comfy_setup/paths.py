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
CUSTOM_NODES = REPO / "comfy_setup" / "custom_nodes"
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


def model_roots(environ: Mapping[str, str]) -> list[Path]:
    """Say which folders hold models, each with ComfyUI's sub-folders (`checkpoints`, `loras`, ...).

    ComfyUI's own `models` folder is not among them: ComfyUI knows it already.

    Args:
        environ: `MODELS_DIR` stands in for the repository's own `models`.

    Returns:
        Absolute paths, the one to write to first (it need not be there yet), then those of a RunPod network volume
        that exist.
    """
    chosen = environ.get("MODELS_DIR", "")
    own = Path(chosen).expanduser().absolute() if chosen else REPO / "models"
    volume = [RUNPOD_VOLUME / "models", RUNPOD_VOLUME / "ComfyUI" / "models"]
    return [own, *(root for root in volume if root.is_dir())]


def workflow_folders() -> list[Path]:
    """Say which folders hold named templates, the worker's own first; the network volume's need not be there."""
    return [REPO / "workflows", RUNPOD_VOLUME / "workflows"]


def custom_node_folders() -> list[Path]:
    """Say which folders hold custom nodes, the worker's own first, then those that custom_nodes.txt names.

    Returns:
        Absolute paths that exist.
    """
    return [folder for folder in (CUSTOM_NODES, NODE_PACKS) if folder.is_dir()]
