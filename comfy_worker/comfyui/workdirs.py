"""The folders of the jobs that run now, below those that ComfyUI reads and writes."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["PREFIX", "JobFolders", "OwnFolder", "make_folders"]

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
        roots = tuple(parents)
        name = uuid.uuid4().hex
        with self._lock:
            self._live[name] = time.time() - CLOCK_S
        try:
            yield name
        finally:
            with self._lock:
                del self._live[name]
            # No lock is held meanwhile: a large folder on a slow disk would hold up all other jobs.
            for root in roots:
                _remove(root / name)
            self._remove_strays(roots)

    def _remove_strays(self, roots: Iterable[Path]) -> None:
        """Remove what no job that runs can have written."""
        with self._lock:
            known = set(self._live)
            oldest = min(self._live.values(), default=math.inf)
        for path in (path for root in roots for path in root.glob("*")):
            if path.name in known or _changed(path) >= oldest:
                continue
            with self._lock:
                if set(self._live) - known:
                    return  # a job has begun, and may write there; the next one to end looks again
                gone = _moved_away(path)
            _remove(gone)


def _moved_away(path: Path) -> Path:
    """Give a folder a name that no node writes to, at once, however much is in it."""
    if path.is_symlink() or not path.is_dir():
        return path
    try:
        return path.rename(path.with_name(f".gone-{uuid.uuid4().hex}"))
    except OSError:
        return path


def _changed(path: Path) -> float:
    """When a file, or the last one in a folder, was changed, as ``time.time()`` counts."""
    try:
        within = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
        return max(item.lstat().st_ctime for item in within)
    except OSError:  # it is being removed
        return math.inf


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what cannot be removed is no reason to lose a result
            path.unlink()


def make_folders(parent: Path, names: Iterable[str]) -> None:
    """Make folders below a folder; one that cannot be made is left to the node that needs it."""
    for name in names:
        with suppress(OSError):
            (parent / name).mkdir(parents=True, exist_ok=True)


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
        _folders_held.add(self)

    def remove(self) -> None:
        """Remove it with all that is in it; any thread may call this, and more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.let_go()

    def let_go(self) -> None:
        """Close the lock; the folder stays."""
        with suppress(IndexError):
            os.close(self._held.pop())


# A process that is forked off the worker, such as the SDK's heartbeat, would hold the locks as well: were the
# worker killed, its folders would stay for as long as that process lives.
_folders_held: weakref.WeakSet[OwnFolder] = weakref.WeakSet()


def _let_go_of_all() -> None:
    for folder in list(_folders_held):
        folder.let_go()


os.register_at_fork(after_in_child=_let_go_of_all)


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
