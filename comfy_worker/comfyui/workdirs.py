"""Creates and removes work folders: one of its own for each ComfyUI, and one in it for each job."""

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
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["PREFIX", "JobFolders", "OwnFolder", "make_folders"]

# Gives paths, or None if they are not known now.
OtherFiles = Callable[[], Iterable[str] | None]
# A file's time can be a little earlier than the clock's.
CLOCK_S = 1.0


class JobFolders:
    """The folders of the jobs that run now; may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, float] = {}
        # What other clients alone have in the parents, with the time of its last change.
        self._of_others: dict[Path, float] = {}

    @property
    def are_alone(self) -> bool:
        """Whether at most one job runs."""
        return len(self._live) <= 1

    @contextmanager
    def opened(self, parents: Iterable[Path], other_files: OtherFiles = tuple) -> Iterator[str]:
        """Yield a random name for a job's own folders; remove the folders when the block ends.

        Files that nodes left elsewhere are removed too if they are older than every running job.

        Args:
            parents: the folders that hold a folder for each job.
            other_files: gives the paths below the parents that are no job's, and stay; None if
                they are not known now. Then the next job that ends looks again.
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
            # Without the lock: a large folder on a slow disk would block all other jobs.
            for root in roots:
                _remove(root / name)
            self._remove_strays(roots, other_files)

    def _remove_strays(self, roots: Iterable[Path], other_files: OtherFiles) -> None:
        """Remove files that no running job can have written."""
        with self._lock:
            known = set(self._live)
            oldest = min(self._live.values(), default=math.inf)
        changed = {path: _changed(path) for path in _entries(roots) if path.name not in known}
        if changed.items() <= self._of_others.items():
            return
        others = other_files()
        if others is None:
            return
        kept = _with_parents(others)
        for stray in _strays(changed, kept, oldest):
            with self._lock:
                if set(self._live) - known:
                    # A job has begun and may write there; the next job that ends looks again.
                    return
                gone = _moved_away(stray)
            _remove(gone)
        of_others = {
            path for path in changed if changed[path] < oldest and _with_real_folder(path) in kept
        }
        self._of_others = {path: changed[path] for path in of_others}


def _strays(paths: Iterable[Path], kept: Set[str], oldest: float) -> Iterator[Path]:
    """Yield the old ones of some files and folders; a folder with something to keep is searched."""
    for path in paths:
        if _with_real_folder(path) not in kept:
            if _changed(path) < oldest:
                yield path
        elif path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # it is being removed
                yield from _strays(list(path.iterdir()), kept, oldest)


def _with_real_folder(path: Path) -> str:
    """Return a path with the links to its folder resolved."""
    return str(path.parent.resolve() / path.name)


def _with_parents(paths: Iterable[str]) -> set[str]:
    found = set(paths)
    for path in list(found):
        found.update(map(str, Path(path).parents))
    return found


def _entries(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield from root.glob("*")


def _moved_away(path: Path) -> Path:
    """Rename a folder so that no node writes to it any more; fast, however large it is."""
    if path.is_symlink() or not path.is_dir():
        return path
    try:
        return path.rename(path.with_name(f".gone-{uuid.uuid4().hex}"))
    except OSError:
        return path


def _changed(path: Path) -> float:
    """Return when a file, or the newest file in a folder, was changed (``time.time()``)."""
    try:
        files = [path]
        if path.is_dir() and not path.is_symlink():
            files += path.rglob("*")
        return max(file.lstat().st_ctime for file in files)
    except OSError:  # it is being removed
        return math.inf


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # a file that cannot be removed must not cost the result
            path.unlink()


def make_folders(parent: Path, names: Iterable[str]) -> None:
    """Create folders below a folder."""
    for name in names:
        with suppress(OSError):  # the node that needs the folder reports the error
            (parent / name).mkdir(parents=True, exist_ok=True)


PREFIX = "comfy_worker-"


class OwnFolder:
    """A new folder that is locked while its process lives; unlocked ones are removed.

    Args:
        root: the folder to create it in; must exist.

    Attributes:
        path: the folder.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, root: Path) -> None:
        # Another process must not see the new folder before it is locked: it would remove it.
        with _locked(root):
            for path in root.glob(f"{PREFIX}*"):
                _remove_if_left(path)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
            self._held = [os.open(self.path, os.O_RDONLY)]
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._held[0], fcntl.LOCK_EX)
        _folders_held.add(self)

    def remove(self) -> None:
        """Remove the folder and its contents; any thread may call this, more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.let_go()

    def let_go(self) -> None:
        """Release the lock; the folder stays."""
        with suppress(IndexError):
            os.close(self._held.pop())


# A process that the worker forks, such as the SDK's heartbeat, would hold the locks too. If the
# worker were killed, its folders would stay as long as that process lives.
_folders_held: weakref.WeakSet[OwnFolder] = weakref.WeakSet()


def _let_go_of_all() -> None:
    for folder in list(_folders_held):
        folder.let_go()


os.register_at_fork(after_in_child=_let_go_of_all)


@contextmanager
def _locked(folder: Path, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, mode)
        yield
    finally:
        os.close(lock)


def _remove_if_left(path: Path) -> None:
    # A folder stays if it is locked, belongs to another user, or its file system has no locks.
    with suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(path, ignore_errors=True)
