"""The official templates of two ComfyUI versions: their editor files, and what the frontend exports of them.

The editor files come from PyPI, since they are not ours to copy. The exports, and the ``/object_info`` of that
ComfyUI, are recorded in ``tests/exports``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from comfy_common import paths

__all__ = ["COMFYUI_033", "COMFYUI_0375", "OfficialTemplates"]

EXPORTS = paths.REPO / "tests" / "exports"


class OfficialTemplates:
    """The templates of one ComfyUI version, as far as exports are recorded.

    Args:
        version: ComfyUI's.
        lock: the lock file, below ``requirements``, of the packages with the editor files.
    """

    def __init__(self, version: str, lock: str) -> None:
        self._recorded = EXPORTS / f"comfyui-{version}.zip"
        self._lock = paths.REPO / "requirements" / lock

    @cached_property
    def object_info(self) -> dict[str, Any]:
        """The declarations of that version's node classes."""
        return self._read("object_info.json")

    @cached_property
    def exports(self) -> dict[str, Any]:
        """By file name, what the frontend exports."""
        return self._read("exports.json")

    def editor_files(self) -> Iterator[tuple[str, Any]]:
        """Yield the file name and the content of each template in UI format."""
        folder = self._packages()
        for name, package in self._read("packages.json").items():
            path = folder / package / "templates" / name
            yield name, json.loads(path.read_text(encoding="utf-8"))

    def _read(self, name: str) -> dict[str, Any]:
        with zipfile.ZipFile(self._recorded) as recorded:
            found: dict[str, Any] = json.loads(recorded.read(name))
        return found

    def _packages(self) -> Path:
        """Fetch the packages once. The worker's own lock may have others, since ComfyUI takes any."""
        folder = paths.CACHE / f"test-{self._lock.stem}"
        if folder.is_dir():
            return folder
        paths.CACHE.mkdir(exist_ok=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        with tempfile.TemporaryDirectory(dir=paths.CACHE) as scratch:
            subprocess.run([*pip, "--target", f"{scratch}/part", "-r", str(self._lock)], check=True)
            for picture in Path(scratch).rglob("*.*"):
                if picture.is_file() and picture.suffix != ".json":
                    picture.unlink()  # 400 MB that no test looks at
            shutil.move(f"{scratch}/part", folder)
        return folder


COMFYUI_0375 = OfficialTemplates("0.3.75", "editor-templates.lock")
COMFYUI_033 = OfficialTemplates("0.33.0", "editor-templates-033.lock")
