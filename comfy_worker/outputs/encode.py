"""Output files -> files as they are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from comfy_worker.outputs.collect import OutputFile, sniff

__all__ = ["Encoded", "encode"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """One file, ready to be delivered.

    Attributes:
        node_id: the node that saved it.
        filename: as ComfyUI named it.
        kind: ``images``, ``videos``, ``audio`` or ``files``.
        mime_type: by content.
        data: its bytes, or where they lie.
        width: of an image, in pixels.
        height: of an image, in pixels.
    """

    node_id: str
    filename: str
    kind: str
    mime_type: str
    data: bytes | Path = field(repr=False)
    width: int | None = None
    height: int | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    def read(self) -> bytes:
        """The bytes."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


def encode(files: Sequence[OutputFile]) -> list[Encoded]:
    """Make each file ready to be delivered.

    Args:
        files: as :func:`find_files` gives them; they must lie there until they are delivered.
    """
    encoded = []
    for file in files:
        with file.path.open("rb") as opened:
            kind, mime_type = sniff(opened.read(64))
        width = height = None
        if kind == "images" and mime_type != "image/svg+xml":
            with Image.open(file.path) as image:
                width, height = image.size
        encoded.append(Encoded(file.node_id, file.path.name, kind, mime_type, file.path, width, height))
    return encoded
