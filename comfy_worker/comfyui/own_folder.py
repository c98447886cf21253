"""Folders of this worker in places that others use as well, and the end of those whose worker is gone.

A worker holds a lock on each of its folders for as long as it lives, however it ends. Who makes a new one removes
those that nobody holds: after a crash in which the guard died too, nothing of a job stays.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["PREFIX", "OwnFolder"]

PREFIX = "comfy_worker-"


class OwnFolder:
    """A new folder.

    Args:
        root: where it lies; must be there.

    Attributes:
        path: the folder.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, root: Path) -> None:
        # Who makes one must have locked it before another may look.
        with _locked(root):
            for path in root.glob(f"{PREFIX}*"):
                _remove_if_left(path)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
            self._held = [os.open(self.path, os.O_RDONLY)]
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._held[0], fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it with all that is in it; any thread may call this, and more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(IndexError):
            os.close(self._held.pop())


@contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


def _remove_if_left(path: Path) -> None:
    # A folder that is held, another user's, or on a file system without locks stays.
    with suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(path, ignore_errors=True)
