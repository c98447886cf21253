"""Keeps the large outputs of finished jobs on disk: a day of pictures would not fit into memory."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OutputStore", "StoredOutput"]

LARGE_BYTES = 50_000


@dataclass(frozen=True)
class StoredOutput:
    """An output that lies in a file."""

    path: Path

    def read(self) -> Any:
        """The output itself."""
        return json.loads(self.path.read_bytes())


class OutputStore:
    """A folder for large outputs; it goes when the store is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="comfy_local-")
        self._count = 0

    def keep(self, output: Any) -> Any:
        """The output itself where it is small, else its file."""
        body = json.dumps(output).encode()
        if len(body) < LARGE_BYTES:
            return output
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.json"
        try:
            path.write_bytes(body)
        except OSError:  # no room on the disk
            return output
        return StoredOutput(path)

    def drop(self, output: Any) -> None:
        """Forget an output that nobody may ask for any more."""
        if isinstance(output, StoredOutput):
            with suppress(OSError):
                output.path.unlink()

    def close(self) -> None:
        """Remove every file."""
        self._folder.cleanup()
