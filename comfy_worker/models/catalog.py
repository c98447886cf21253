"""Reads models.txt for the worker, and logs which model files this machine has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from comfy_common import model_folders, paths
from comfy_common.models_txt import MODELS_TXT, ModelsTxtError, parse_models
from comfy_worker.workflow.model_files import ModelFile

__all__ = ["listed_models", "log_model_locations"]

log = logging.getLogger(__name__)


def listed_models(path: Path = MODELS_TXT) -> tuple[ModelFile, ...]:
    """Read models.txt; a missing or broken file lists no models, so that no job fails for it."""
    try:
        entries = parse_models(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ModelsTxtError) as error:
        log.warning(
            "models.txt cannot be read: %s", error, extra={"action": "models_txt.unreadable"}
        )
        return ()
    listed = []
    for entry in entries:
        folder, _, file = entry.path.partition("/")
        listed.append(ModelFile(folder, file, entry.url))
    return tuple(listed)


def log_model_locations(comfyui_dir: Path, roots: Sequence[Path], volume: Path) -> None:
    """Log which models were found where, and what else the network volume provides."""
    searched = model_folders.model_folders(comfyui_dir, roots)
    for folder_name, files in model_folders.model_files(searched).items():
        where = model_folders.where(files)
        log.info("%s: %s", folder_name, where, extra={"action": "models.found"})
    for folder in (*paths.workflow_folders(volume), *paths.custom_node_folders(volume)):
        if volume in folder.parents and folder.is_dir():
            log.info("the network volume has %s", folder, extra={"action": "volume.found"})
