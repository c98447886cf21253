"""Remembers the files of ComfyUI's other clients, which upload them or run prompts of their own.

The worker removes what the nodes of its jobs leave beside the jobs' folders, but not these files.
A folder may hold both: ComfyUI itself makes ``input/3d``, and a job's node may save there. So each
file is remembered by itself, and a file that a job writes is no longer another client's.
"""

# Paths come as ComfyUI's own texts, and are compared as such.
# ruff: noqa: PTH118
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .readable import JOB_NAME

__all__ = ["OtherClients"]


@dataclass(frozen=True)
class _Prompt:
    """A prompt of another client.

    Attributes:
        roots: ComfyUI's folders.
        before: the paths that were in them when it began.
        of_jobs: what threads of jobs have written since.
    """

    roots: tuple[str, ...]
    before: frozenset[str]
    of_jobs: set[str] = field(default_factory=set)


class OtherClients:
    """The files and folders in ComfyUI's folders that belong to other clients."""

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}
        self._running: _Prompt | None = None

    def note(self, path: str, roots: Iterable[str]) -> None:
        """Remember a file or a folder that another client writes.

        Args:
            path: of the file.
            roots: ComfyUI's folders.
        """
        written = _with_real_folder(path)
        if any(_is_in_no_job(written, root) for root in roots):
            self._paths[written] = None

    def forget(self, path: str) -> None:
        """Remember that a job writes a file."""
        running = self._running
        if self._paths or running is not None:
            written = _with_real_folder(path)
            self._paths.pop(written, None)
            if running is not None:
                running.of_jobs.add(written)

    @contextmanager
    def prompt(self, roots: Iterable[str]) -> Iterator[None]:
        """Remember what appears within the block, in which another client's prompt runs.

        Some programs and libraries write files that no hook sees.

        Args:
            roots: ComfyUI's folders.
        """
        real = tuple(dict.fromkeys(map(os.path.realpath, roots)))
        self._running = _Prompt(real, frozenset(_contents(real)))
        try:
            yield
        finally:
            self._note_new()
            self._running = None

    def paths(self) -> list[str]:
        """Return the paths that still exist, with the links to their folders resolved."""
        self._note_new()
        for path in list(self._paths):
            if not os.path.lexists(path):
                self._paths.pop(path, None)
        return list(self._paths)

    def _note_new(self) -> None:
        running = self._running
        if running is None:
            return
        new = set(_contents(running.roots)) - running.before - running.of_jobs
        if self._running is running:  # if not, a job may run by now, and its end has noted them
            self._paths.update(dict.fromkeys(new))


def _with_real_folder(path: str) -> str:
    """Return a path with the links to its folder resolved."""
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
    return os.path.join(os.path.realpath(folder), name)


def _is_in_no_job(path: str, root: str) -> bool:
    """Return whether a path is in a folder, but not in the folder of a job."""
    if not path.startswith(root + os.sep):
        return False
    return not JOB_NAME.fullmatch(path[len(root) + 1 :].split(os.sep, 1)[0])


def _contents(roots: Iterable[str]) -> Iterator[str]:
    """Yield the paths of all files and folders in some folders, without the folders of jobs."""
    for root in roots:
        for folder, folders, files in os.walk(root):
            if folder == root:
                folders[:] = [name for name in folders if not JOB_NAME.fullmatch(name)]
            yield from (os.path.join(folder, name) for name in (*folders, *files))
