"""Takes the paths of this machine out of texts that clients read.

A client can do nothing with them, and they show an attacker where files lie. What a client reads instead
names the folder: ``ComfyUI/nodes.py``, ``models/loras/x.safetensors``.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ServerPaths"]

# A path begins where no path or address goes on: not in "https://host/tmp" or "a/tmp".
BEGINS = r"(?<![\w.:/~-])"
ENDS = r"(?![\w.-])"
# The folders that ComfyUIProcess makes, with the one below that ComfyUI names in its own answers.
RUN_FOLDER = r"/comfy_worker-\w+/?"


class ServerPaths:
    """Knows the folders of this machine by the names that clients may read.

    Args:
        folders: by path, the name; the worker's own temporary folders and Python's are added.
    """

    def __init__(self, folders: Mapping[Path, str]) -> None:
        self._folders = {str(path): name for path, name in folders.items()}
        self._pattern: re.Pattern[str] | None = None
        self._names: dict[str, str] = {}

    def strip(self, text: str) -> str:
        """Replace each folder of this machine by its name."""
        if "/" not in text:
            return text
        if self._pattern is None:
            self._look_up()
        assert self._pattern is not None
        return self._pattern.sub(self._name_of, text)

    def _look_up(self) -> None:
        # Only now: a link is resolved on the disk, which may be a network volume that hangs.
        names = {
            str(Path.home()): "~",
            tempfile.gettempdir(): "tmp",
            "/dev/shm": "tmp",  # noqa: S108
            sys.base_prefix: "python",
            sys.prefix: "python",
            **self._folders,
        }
        # ComfyUI tells of its files by their real paths.
        for path, name in list(names.items()):
            names.setdefault(os.path.realpath(path), name)
        self._names = {path: name for path, name in names.items() if path.count("/") and path != "/"}
        # The longest first: one folder may lie in another.
        folders = "|".join(re.escape(path) for path in sorted(self._names, key=len, reverse=True))
        self._pattern = re.compile(f"{BEGINS}({folders})(?:({RUN_FOLDER})|{ENDS})")

    def _name_of(self, match: re.Match[str]) -> str:
        # Of ".../comfy_worker-x1y2/output/a.png" the client reads "output/a.png".
        return "" if match[2] else self._names[match[1]]
