"""The model files that models.txt names: where one that is missing can be got; and which files lie where."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from comfy_common import model_folders as places
from comfy_common import paths
from comfy_common.models_txt import MODELS_TXT, ModelsTxtError, parse_models
from comfy_worker.planning.templates import Template
from comfy_worker.workflow.check.preflight import Finding
from comfy_worker.workflow.graph import Need

__all__ = ["listed_models", "missing_needs", "tell_places"]

log = logging.getLogger(__name__)


def listed_models(path: Path = MODELS_TXT) -> tuple[Need, ...]:
    """Read models.txt; where it is missing or broken no model is listed, and no job fails for that."""
    try:
        entries = parse_models(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ModelsTxtError) as error:
        log.warning("models.txt is not read: %s", error, extra={"action": "models_txt.unreadable"})
        return ()
    paths = (entry.path.partition("/") for entry in entries)
    return tuple(Need(folder, file, entry.url) for entry, (folder, _, file) in zip(entries, paths, strict=True))


def missing_needs(findings: Iterable[Finding], template: Template | None, listed: Iterable[Need]) -> list[Need]:
    """The model files that are missing and that a template's params or models.txt say where to get."""
    told = (*(template.params.needs if template else ()), *listed)
    known = {(need.folder, need.file): need for need in told if need.url}
    missing = [(finding["folder"], finding["given"]) for finding in findings if finding["type"] == "missing_model"]
    return list({key: known[key] for key in missing if key in known}.values())


def tell_places(comfyui_dir: Path, roots: Sequence[Path], volume: Path) -> None:
    """Log which models were found where, and what else the network volume brings."""
    for kind, files in places.model_files(places.model_folders(comfyui_dir, roots)).items():
        log.info("%s: %s", kind, places.where(files), extra={"action": "models.found"})
    for folder in (*paths.workflow_folders(volume), *paths.custom_node_folders(volume)):
        if volume in folder.parents and folder.is_dir():
            log.info("the network volume has %s", folder, extra={"action": "volume.found"})
