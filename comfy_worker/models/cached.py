"""Finds the model files that lie in caches of Hugging Face under other names than workflows use.

:mod:`comfy_common.hub_cache` reads the caches. Here is which files are wanted: those of models.txt
and of the templates' params. All functions look at the network volume, which may hang.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from comfy_common import hub_cache, paths
from comfy_common.models_txt import MODELS_TXT, ModelsTxtError, parse_models
from comfy_worker.settings import Settings

__all__ = ["cached_models", "log_cached_models"]

log = logging.getLogger(__name__)

PARAMS = "*.params.json"


def cached_models(settings: Settings) -> dict[str, Path]:
    """Find the cached files that ComfyUI shall see under the names that workflows use.

    Returns:
        The files by ``folder/file``. Those that already have this name in a cache are left out.
    """
    snapshots = settings.hub_snapshots
    if not snapshots:
        return {}
    return hub_cache.links(_wanted(settings), snapshots, settings.hf_endpoint)


def log_cached_models(settings: Settings) -> None:
    """Log what the caches of Hugging Face provide."""
    for snapshot in settings.hub_snapshots:
        if snapshot.means("main"):
            root = snapshot.root
            layout = f"model folders in {root}" if root else "no model folders"
            log.info(
                "cached model %s: %s", snapshot.repo, layout, extra={"action": "models.cached"}
            )
    for name, file in cached_models(settings).items():
        log.info(
            "model %s: using the cached file %s", name, file, extra={"action": "models.cached"}
        )


def _wanted(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the files of models.txt and of the templates' params, with their URLs."""
    try:
        entries = parse_models(MODELS_TXT.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ModelsTxtError):
        entries = []  # the reading for jobs logs it
    for entry in entries:
        yield entry.path, entry.url
    for folder in paths.workflow_folders(settings.volume):
        for file in sorted(folder.glob(PARAMS)):
            yield from _needs(file)


def _needs(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the needs of a template; none if its file is broken: its first job reports that."""
    try:
        needs = json.loads(file.read_text(encoding="utf-8-sig"))["needs"]
        named = [(f"{need['folder']}/{need['file']}", need.get("url")) for need in needs]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    for name, url in named:
        if isinstance(url, str):
            yield name, url
