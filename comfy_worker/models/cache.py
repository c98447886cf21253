"""Models that were fetched because a job asked for them: each fetched once, within a budget; the oldest go first.

Owns ``<root>/<folder>/<file>``, which ComfyUI searches, and beside it ``.parts`` and ``.locks``. A file's lock is
shared while jobs use it and exclusive while it is fetched or removed, which holds for all workers on one machine;
its time is when the file was last used, and while it is fetched its text is the size. Knows nothing of jobs.
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
    """The files below one folder; may be shared by threads.

    Args:
        root: the folder; made with its first file.
        budget: how many bytes all files may take together.
    """

    def __init__(self, root: Path, budget: int) -> None:
        self._root = root
        self._budget = budget

    def hold(self, source: Source, name: str, access: Access, watch: Watch) -> IO[str]:
        """Have a file, fetched where it is not there, and keep it until what is returned is closed.

        Args:
            source: where it comes from.
            name: ``folder/file`` below the root.
            access: what the download may show and reach.
            watch: who waits; also told of a download that another one does.

        Raises:
            DownloadError: it cannot be had, or does not fit.
            DownloadCancelled: ``watch.cancelled`` was set.
            OSError: the disk did not take it.
        """
        path, parts = self._root / name, self._root / ".parts" / name
        while not watch.cancelled.is_set():
            there = path.is_file()
            lock = self._locked(name, fcntl.LOCK_SH if there else fcntl.LOCK_EX)
            if lock is None:
                watch.tell(bytes_in(parts), None)
                watch.cancelled.wait(WAIT_S)
            elif there:
                if path.is_file():
                    os.utime(lock.name)
                    return lock
                lock.close()  # dropped meanwhile; to fetch it wants the other lock
            else:
                with lock:
                    if not path.is_file():
                        self._fetch(source, name, access, watch, lock)
        raise DownloadCancelled

    def drop_oldest_until_free(self, free: int) -> bool:
        """Remove files that no job uses, the least recently used first, until the disk has so many bytes free.

        Args:
            free: bytes.

        Returns:
            Whether it has them now.
        """
        return not self._root.is_dir() or self._drop_until(lambda: shutil.disk_usage(self._root).free >= free)

    def _fetch(self, source: Source, name: str, access: Access, watch: Watch, lock: IO[str]) -> None:
        def admit(total: int | None) -> None:
            if total is None:
                raise DownloadError(f"{source.shown}: its host does not say how large it is")
            self._reserve(source, name, total, lock)

        parts = self._root / ".parts" / name
        try:
            inner = Watch(watch.tell, admit, watch.cancelled)
            download(source, self._root / name, access, parts, watch=inner)
            log.info("fetched %s", name, extra={"action": "models.fetched"})
        finally:
            lock.truncate(0)

    def _reserve(self, source: Source, name: str, total: int, lock: IO[str]) -> None:
        """Make room for a file, beside those that are there and those that come."""
        if total > self._budget:
            raise DownloadError(
                f"{source.shown} is {size(total)}, and MODELS_CACHE_GB keeps {size(self._budget)} of such files"
            )
        to_come = max(0, total - bytes_in(self._root / ".parts" / name))
        with (self._root / ".locks" / "all").open("w") as all_of_them:
            fcntl.flock(all_of_them, fcntl.LOCK_EX)  # or two would take the same room
            lock.truncate(0)
            lock.write(str(total))
            lock.flush()
            if not self._drop_until(lambda: self._used() <= self._budget):
                raise DownloadError(
                    f"{source.shown} does not fit beside the models in use: send the job again later"
                )
            if not self._drop_until(lambda: shutil.disk_usage(self._root).free >= to_come):
                raise DownloadError(f"{source.shown} is {size(total)}, and the worker's disk has no room for it")

    def _drop_until(self, enough: Callable[[], bool]) -> bool:
        """Remove files until it is enough; False where all that are left are in use."""
        for lock_path in self._oldest_first():
            if enough():
                return True
            name = str(lock_path.relative_to(self._root / ".locks").with_suffix(""))
            lock = self._locked(name, fcntl.LOCK_EX)
            if lock is not None:
                with lock:
                    (self._root / name).unlink(missing_ok=True)
                    shutil.rmtree(self._root / ".parts" / name, ignore_errors=True)
                    lock_path.unlink()
                log.info("dropped %s", name, extra={"action": "models.dropped"})
        return enough()

    def _used(self) -> int:
        """The bytes of all files, those that are still to come counted in full."""
        total = 0
        for lock_path in self._locks():
            name = lock_path.relative_to(self._root / ".locks").with_suffix("")
            here = bytes_in(self._root / ".parts" / name)
            with contextlib.suppress(FileNotFoundError):
                here += (self._root / name).stat().st_size
            with contextlib.suppress(FileNotFoundError, ValueError):
                here = max(here, int(lock_path.read_text(encoding="utf-8")))
            total += here
        return total

    def _oldest_first(self) -> list[Path]:
        used = []
        for path in self._locks():
            with contextlib.suppress(FileNotFoundError):  # another worker has just dropped it
                used.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(used)]

    def _locks(self) -> Iterator[Path]:
        return (self._root / ".locks").rglob("*.lock")

    def _locked(self, name: str, how: int) -> IO[str] | None:
        """A file's lock, taken; None where another one's stands against it."""
        path = self._root / ".locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass
        lock.close()  # taken, or removed meanwhile
        return None
