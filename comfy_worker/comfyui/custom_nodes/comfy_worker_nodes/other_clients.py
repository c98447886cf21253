"""Remembers the files of ComfyUI's other clients, which upload them or run prompts of their own.

The worker removes what the nodes of its jobs leave beside the jobs' folders, but not these files.
"""

# Paths come as ComfyUI's own texts, and are compared as such.
# ruff: noqa: PTH100, PTH118
from __future__ import annotations

import os
from collections.abc import Iterable

from .readable import JOB_NAME

__all__ = ["OtherClients"]


class OtherClients:
    """The entries of ComfyUI's input, output and temp folders that belong to other clients."""

    def __init__(self) -> None:
        self._entries: dict[str, None] = {}

    def note(self, path: str, roots: Iterable[str]) -> None:
        """Remember the entry of a folder that a file is in.

        Args:
            path: of the file.
            roots: the folders.
        """
        written = os.path.abspath(path)
        for root in roots:
            if written.startswith(root + os.sep):
                name = written[len(root) + 1 :].split(os.sep, 1)[0]
                if not JOB_NAME.fullmatch(name):
                    self._entries[os.path.join(os.path.realpath(root), name)] = None

    def entries(self) -> list[str]:
        """Return the paths of the entries that still exist; links to the folders are resolved."""
        for path in list(self._entries):
            if not os.path.lexists(path):
                self._entries.pop(path, None)
        return list(self._entries)
