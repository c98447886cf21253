"""Keeps the last /object_info of this machine's ComfyUI, so that commands need not start it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from comfy_common import paths
from comfy_worker.comfyui.version import ComfyUIVersion
from comfy_worker.settings import Settings
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["SavedObjectInfo"]


class SavedObjectInfo:
    """The saved answer. It counts only while ComfyUI, its node packs and its models are the same.

    Args:
        folder: where it is kept.
        settings: name ComfyUI, its node packs and its models.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        name = hashlib.sha256(os.fsencode(settings.comfyui_dir)).hexdigest()[:12]
        self.path = folder / "object_info" / f"{name}.json"
        self._settings = settings

    def read(self) -> NodeDefs | None:
        """Return the saved node definitions; None if there are none, or they are out of date."""
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            if saved["fingerprint"] != self._fingerprint():
                return None
            return NodeDefs(dict(saved["object_info"]), saved["validated"], saved["replacements"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def age_s(self) -> float:
        """Return how many seconds ago the definitions were saved."""
        return max(0.0, time.time() - self.path.stat().st_mtime)

    def write(self, defs: NodeDefs) -> None:
        """Save node definitions. A disk that is full or read-only does not matter here."""
        saved = {"fingerprint": self._fingerprint(), **defs.as_saved()}
        part = self.path.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(saved), encoding="utf-8")
            part.replace(self.path)

    def _fingerprint(self) -> str:
        """A text that changes if ComfyUI, a node pack or a folder of models changes."""
        settings = self._settings
        packs = paths.custom_node_folders(settings.volume)
        models = [settings.comfyui_dir / "models", *settings.model_roots]
        version = ComfyUIVersion.in_folder(settings.comfyui_dir).name or ""
        parts: list[Any] = [str(settings.comfyui_dir), version, list(settings.comfy_args)]
        parts += _folder_times([settings.comfyui_dir / "custom_nodes", *packs, *models])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _folder_times(folders: Iterable[Path]) -> list[tuple[str, int]]:
    """When the folders, and the folders in them, changed last."""
    found = []
    for folder in folders:
        with suppress(OSError):
            found.append((str(folder), folder.stat().st_mtime_ns))
            entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
            found += [
                (entry.path, entry.stat().st_mtime_ns)
                for entry in sorted(entries, key=lambda entry: entry.name)
                if entry.name != "__pycache__"
            ]
    return found
