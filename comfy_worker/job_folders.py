"""The folders of the jobs that run now, below those that ComfyUI reads and writes.

Owns their names and their end. Knows nothing of what is in them.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["JobFolders"]

# A file's time may lie a little before the clock's.
CLOCK_S = 1.0


class JobFolders:
    """May be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, float] = {}

    @property
    def are_alone(self) -> bool:
        """Whether there is one job at most."""
        return len(self._live) <= 1

    @contextmanager
    def opened(self, parents: Iterable[Path]) -> Iterator[str]:
        """A name, not to be guessed, for a job's own folders; they are removed with all that is in them.

        So is whatever nodes wrote elsewhere before the oldest job that still runs had begun.

        Args:
            parents: the folders that hold such folders.
        """
        name = uuid.uuid4().hex
        with self._lock:
            self._live[name] = time.time() - CLOCK_S
        try:
            yield name
        finally:
            with self._lock:
                del self._live[name]
                oldest = min(self._live.values(), default=math.inf)
                for path in (path for parent in parents for path in parent.glob("*")):
                    if path.name == name or (path.name not in self._live and _changed(path) < oldest):
                        _remove(path)


def _changed(path: Path) -> float:
    """When a file, or the last one in a folder, was changed, as ``time.time()`` counts."""
    try:
        within = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
        return max(one.lstat().st_ctime for one in within)
    except OSError:  # it is being removed
        return math.inf


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what cannot be removed is no reason to lose a result
            path.unlink()
