"""Output files -> files as they are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from comfy_worker.outputs.collect import OutputFile, sniff

__all__ = ["EncodedFile", "encode"]


@dataclass(frozen=True, eq=False)
class EncodedFile:
    """One file, ready to be delivered.

    Attributes:
        filename: as ComfyUI named it.
        mime_type: by content.
        kind: ``images``, ``videos``, ``audio`` or ``files``.
        node_id: the node that saved it.
        content: its bytes, or where they lie.
        width: of an image, in pixels.
        height: of an image, in pixels.
    """

    filename: str
    mime_type: str
    kind: str
    node_id: str
    content: bytes | Path = field(repr=False)
    width: int | None = None
    height: int | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def read(self) -> bytes:
        """The bytes."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


def encode(files: Sequence[OutputFile]) -> list[EncodedFile]:
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
        encoded.append(EncodedFile(file.path.name, mime_type, kind, file.node_id, file.path, width, height))
    return encoded
