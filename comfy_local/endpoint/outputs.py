"""Keeps the large outputs of finished jobs on disk, since they would not fit into memory."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OutputStore", "StoredOutput", "read_kept"]

LARGE_BYTES = 50_000


@dataclass(frozen=True)
class StoredOutput:
    """An output in a file."""

    path: Path

    def read(self) -> Any:
        """Read the output."""
        return json.loads(self.path.read_bytes())


def read_kept(value: Any) -> Any:
    """Return what was given to `OutputStore.keep`, from the file if it is in one."""
    return value.read() if isinstance(value, StoredOutput) else value


class OutputStore:
    """A folder for large outputs, removed when the store is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="comfy_local-")
        self._count = 0

    @property
    def folder(self) -> Path:
        """The folder, which may hold other files of the same life."""
        return Path(self._folder.name)

    def keep(self, output: Any) -> Any:
        """Store an output. Returns a small one unchanged, and the file of a large one."""
        body = json.dumps(output).encode()
        if len(body) < LARGE_BYTES:
            return output
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.json"
        try:
            path.write_bytes(body)
        except OSError:  # the disk is full
            return output
        return StoredOutput(path)

    def drop(self, output: Any) -> None:
        """Remove an output that no client can fetch any more."""
        if isinstance(output, StoredOutput):
            with suppress(OSError):
                output.path.unlink()

    def close(self) -> None:
        """Remove every file."""
        self._folder.cleanup()
