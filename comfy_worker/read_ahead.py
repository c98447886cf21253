"""Reads files into the page cache before a program needs them, in threads of its own.

On a cold disk reading takes longer than running. The threads read while Python still imports. What
is in the page cache already costs next to nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["ReadAhead"]

log = logging.getLogger(__name__)

THREADS = 4
PIECE_BYTES = 8 << 20
# How many places of a piece are looked at to tell whether it is in the page cache.
LOOKS = 4


class _Piece(NamedTuple):
    """A part of a file."""

    path: Path
    offset: int
    length: int


class ReadAhead:
    """Reads some files once, in the background.

    Args:
        find: lists the files; called in a thread, since they may lie on a slow network volume.
        most_bytes: how many bytes are read at most: more would drive the first ones out of memory.

    Attributes:
        total_bytes: the size of what is read; 0 until the files are found.
        done_bytes: how much of it is in the page cache.
    """

    def __init__(self, find: Callable[[], Iterable[Path]], most_bytes: float) -> None:
        self._find = find
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._pieces: Iterator[_Piece] = iter(())
        self._ended = threading.Event()
        self.total_bytes = 0
        self.done_bytes = 0

    def start(self) -> None:
        """Begin to read; returns at once."""
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is read; returns whether it is."""
        return self._ended.wait(timeout_s)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            pieces = self._list_pieces()
            self._pieces = iter(pieces)
            threads = [
                threading.Thread(target=self._read_pieces, name="read-ahead", daemon=True)
                for _ in range(min(THREADS, len(pieces)))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self._ended.set()
        megabytes, seconds = self.done_bytes / 1e6, time.monotonic() - began
        log.info(
            "read %.0f MB ahead in %.1f s", megabytes, seconds, extra={"action": "read_ahead.done"}
        )

    def _list_pieces(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        for path, size in self._list_files():
            if self.total_bytes + size > self._most_bytes:
                continue
            self.total_bytes += size
            offsets = range(0, size, PIECE_BYTES)
            pieces += [_Piece(path, at, min(PIECE_BYTES, size - at)) for at in offsets]
        return pieces

    def _list_files(self) -> list[tuple[Path, int]]:
        """List the files with their sizes. Whoever needs a missing one says so."""
        files: list[tuple[Path, int]] = []
        with suppress(OSError):
            for path in dict.fromkeys(self._find()):
                with suppress(OSError):
                    files.append((path, path.stat().st_size))
        return files

    def _read_pieces(self) -> None:
        buffer = bytearray(PIECE_BYTES)
        while (piece := self._next_piece()) is not None:
            # Whoever needs the file says what is wrong with it.
            with suppress(OSError):
                _read(piece, buffer)
            with self._lock:
                self.done_bytes += piece.length

    def _next_piece(self) -> _Piece | None:
        with self._lock:
            return next(self._pieces, None)


def _read(piece: _Piece, buffer: bytearray) -> None:
    """Have the kernel read a piece, unless it is in the page cache."""
    descriptor = os.open(piece.path, os.O_RDONLY)
    try:
        if not _is_cached(descriptor, piece):
            os.preadv(descriptor, [memoryview(buffer)[: piece.length]], piece.offset)
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, piece: _Piece) -> bool:
    """Whether a piece seems to be in the page cache; False where the system cannot tell."""
    flag = getattr(os, "RWF_NOWAIT", 0)
    if not flag:
        return False
    byte = bytearray(1)
    for look in range(LOOKS):
        offset = piece.offset + piece.length * look // LOOKS
        try:
            os.preadv(descriptor, [byte], offset, flag)
        except OSError as error:
            # EAGAIN: it would have to be read. Any other: this file system does not tell.
            log.debug("not cached: %s", errno.errorcode.get(error.errno or 0))
            return False
    return True
