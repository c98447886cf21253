"""Keeps the model files that were downloaded for jobs, within a budget of bytes.

A file is ``<root>/<folder>/<file>``, where ComfyUI finds it. Beside it are ``.parts``, which holds
unfinished downloads, and ``.locks``, which holds one lock file for each model. Jobs share a model's
lock while they use it; a download or a removal takes the lock alone. File locks work between all
workers on one machine. A lock file's time is when its model was last used; during a download its
text is the size of the model. Files that were not used for the longest time are removed first.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from comfy_common.download import DownloadCancelled, DownloadError, Watch, bytes_in, download
from comfy_common.sources import Access, Source
from comfy_common.text import size

__all__ = ["ModelCache"]

log = logging.getLogger(__name__)

WAIT_S = 0.2


class ModelCache:
    """The model files below one folder; may be shared by threads.

    Args:
        root: the folder; created with its first file.
        budget: how many bytes all files together may take.
        find_elsewhere: finds a file that need not be downloaded, since it lies in another folder.
    """

    def __init__(
        self,
        root: Path,
        budget: int,
        find_elsewhere: Callable[[Source], Path | None] = lambda _source: None,
    ) -> None:
        self._root = root
        self._budget = budget
        self._find_elsewhere = find_elsewhere

    def hold(self, source: Source, name: str, access: Access, watch: Watch) -> IO[str]:
        """Make sure that a file is present, and keep it until the returned lock is closed.

        Args:
            source: where the file is downloaded from if it is missing.
            name: ``folder/file`` below the root.
            access: the tokens that the download may send, and the addresses that it may reach.
            watch: receives the progress, also of a download that another job or worker has started.

        Raises:
            DownloadError: the file cannot be downloaded, or does not fit.
            DownloadCancelled: ``watch.cancelled`` was set.
            OSError: the disk failed.
        """
        path = self._root / name
        while not watch.cancelled.is_set():
            is_present = path.is_file()
            lock = self._locked(name, fcntl.LOCK_SH if is_present else fcntl.LOCK_EX)
            if lock is None:
                watch.tell(bytes_in(self._parts(name)), None)
                watch.cancelled.wait(WAIT_S)
            elif not is_present:
                with lock:
                    self._fetch_if_missing(source, name, access, watch, lock)
            elif path.is_file():
                os.utime(lock.name)
                return lock
            else:
                # Another job removed the file before we had the lock. Downloading needs the lock
                # alone, so begin again.
                lock.close()
        raise DownloadCancelled

    def drop_oldest_until_free(self, free: int) -> bool:
        """Remove unused files, the least recently used first, until the disk has enough space.

        Args:
            free: how many bytes of the disk should be free.

        Returns:
            Whether that many are free now.
        """
        if not self._root.is_dir():
            return True
        return self._drop_until(lambda: shutil.disk_usage(self._root).free >= free)

    def _parts(self, name: str) -> Path:
        return self._root / ".parts" / name

    def _fetch_if_missing(
        self, source: Source, name: str, access: Access, watch: Watch, lock: IO[str]
    ) -> None:
        if (self._root / name).is_file():
            return
        elsewhere = self._find_elsewhere(source)
        if elsewhere is not None:
            self._link(name, elsewhere)
            return

        def admit(total: int | None) -> None:
            if total is None:
                raise DownloadError(f"{source.shown}: its host does not say how large it is")
            self._reserve(source, name, total, lock)

        try:
            reserving = Watch(watch.tell, admit, watch.cancelled)
            download(source, self._root / name, access, self._parts(name), watch=reserving)
            log.info("downloaded %s", name, extra={"action": "models.fetched"})
        finally:
            lock.truncate(0)

    def _link(self, name: str, file: Path) -> None:
        """Use a file where it lies. The link takes no space of the budget."""
        link = self._root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # it may lead to a file that is gone
        link.symlink_to(file)
        log.info(
            "model %s: using the cached file %s", name, file, extra={"action": "models.cached"}
        )

    def _reserve(self, source: Source, name: str, total: int, lock: IO[str]) -> None:
        """Make space for a file, beside the present files and other downloads."""
        if total > self._budget:
            limit = size(self._budget)
            raise DownloadError(
                f"{source.shown} is {size(total)}, and MODELS_CACHE_GB allows {limit} in all"
            )
        to_come = max(0, total - bytes_in(self._parts(name)))
        with (self._root / ".locks" / "all").open("w") as reservations:
            # Without this lock two downloads could reserve the same space.
            fcntl.flock(reservations, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(str(total))
            lock.flush()
            if not self._drop_until(lambda: self._used() <= self._budget):
                raise DownloadError(
                    f"{source.shown} does not fit beside the models in use: send the job again "
                    "later"
                )
            if not self._drop_until(lambda: shutil.disk_usage(self._root).free >= to_come):
                raise DownloadError(
                    f"{source.shown} is {size(total)}, and the worker's disk has no space for it"
                )

    def _drop_until(self, is_enough: Callable[[], bool]) -> bool:
        """Remove unused files until there is enough space; returns whether there is enough."""
        for lock_path in self._oldest_first():
            if is_enough():
                return True
            name = self._name(lock_path)
            lock = self._locked(name, fcntl.LOCK_EX)
            if lock is not None:
                with lock:
                    (self._root / name).unlink(missing_ok=True)
                    shutil.rmtree(self._parts(name), ignore_errors=True)
                    lock_path.unlink()
                log.info("removed %s", name, extra={"action": "models.dropped"})
        return is_enough()

    def _used(self) -> int:
        """The bytes of all files; unfinished downloads count with their final size."""
        return sum(self._used_by(lock_path) for lock_path in self._locks())

    def _used_by(self, lock_path: Path) -> int:
        name = self._name(lock_path)
        used = bytes_in(self._parts(name))
        with contextlib.suppress(FileNotFoundError):
            used += (self._root / name).lstat().st_size
        with contextlib.suppress(FileNotFoundError, ValueError):
            used = max(used, int(lock_path.read_text(encoding="utf-8")))
        return used

    def _oldest_first(self) -> list[Path]:
        last_used = []
        for path in self._locks():
            with contextlib.suppress(FileNotFoundError):  # another worker has just removed it
                last_used.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(last_used)]

    def _locks(self) -> Iterator[Path]:
        return (self._root / ".locks").rglob("*.lock")

    def _name(self, lock_path: Path) -> str:
        return str(lock_path.relative_to(self._root / ".locks").with_suffix(""))

    def _locked(self, name: str, operation: int) -> IO[str] | None:
        """Lock a file; None if another job or worker has it locked."""
        path = self._root / ".locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        try:
            fcntl.flock(lock, operation | fcntl.LOCK_NB)
            # The lock file may have been removed while we opened it; then our lock locks nothing.
            if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass
        lock.close()
        return None
