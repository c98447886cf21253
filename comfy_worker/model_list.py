"""The model files that models.txt names: where one that is missing can be got."""

from __future__ import annotations

import logging
from pathlib import Path

from comfy_setup.models_txt import MODELS_TXT, ModelsTxtError, parse_models
from comfy_worker.graph.workflow import Need

__all__ = ["listed_models"]

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
