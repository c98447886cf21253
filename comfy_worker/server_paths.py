"""Replaces the paths of this machine in texts that clients read.

Clients cannot use these paths, and attackers could. A client reads a name for the folder instead:
``ComfyUI/nodes.py``, ``models/loras/x.safetensors``.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ServerPaths"]

# A path does not begin inside another path or address, as in "https://host/tmp" or "a/tmp".
BEGINS = r"(?<![\w.:/~-])"
ENDS = r"(?![\w.-])"
# The folders that ComfyUIProcess creates. Their subfolders have the names that ComfyUI uses.
RUN_FOLDER = r"/comfy_worker-\w+/?"


class ServerPaths:
    """The folders of this machine, with the names that clients may read.

    Args:
        folders: by path, the name. Temporary folders and Python's folders are added.
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
        # Not at the start: this resolves links on the disk, which may be a network volume that
        # hangs.
        names = {
            str(Path.home()): "~",
            tempfile.gettempdir(): "tmp",
            "/dev/shm": "tmp",  # noqa: S108
            sys.base_prefix: "python",
            sys.prefix: "python",
            **self._folders,
        }
        # ComfyUI writes the real paths of its files.
        for path, name in list(names.items()):
            names.setdefault(os.path.realpath(path), name)
        self._names = {
            path: name for path, name in names.items() if path.count("/") and path != "/"
        }
        # The longest first: one folder may contain another.
        longest_first = sorted(self._names, key=len, reverse=True)
        folders = "|".join(re.escape(path) for path in longest_first)
        self._pattern = re.compile(f"{BEGINS}({folders})(?:({RUN_FOLDER})|{ENDS})")

    def _name_of(self, match: re.Match[str]) -> str:
        # For ".../comfy_worker-x1y2/output/a.png" the client reads "output/a.png".
        return "" if match[2] else self._names[match[1]]
