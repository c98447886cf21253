"""Finds the files and texts that output nodes reported.

The kind of a file is decided by its content: ComfyUI reports videos and animations under ``images`` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_worker.errors import NoOutput

__all__ = ["OutputFile", "find_files", "find_texts", "sniff"]


@dataclass(frozen=True)
class OutputFile:
    """A file that a node wrote.

    Attributes:
        node_id: the node that reported it.
        path: where it lies.
        type: ``output`` or ``temp``.
    """

    node_id: str
    path: Path
    type: str


def find_files(outputs: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]) -> list[OutputFile]:
    """List every file that the output nodes of a prompt reported.

    Args:
        outputs: by node id, what each reported: ``{"images": [{filename, subfolder, type}], ...}``.
        folders: by ``type``, ComfyUI's folder.

    Raises:
        NoOutput: a reported file is not there.
    """
    found = []
    for node_id, item in _items(outputs):
        if not isinstance(item, dict) or "filename" not in item:
            continue
        kind = str(item.get("type") or "output")
        folder = folders.get(kind)
        if folder is None:  # `input`: a node that shows what it was given
            continue
        path = (folder / str(item.get("subfolder") or "") / str(item["filename"])).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise NoOutput(
                f"node {node_id} reported {item['filename']}, and there is no such file; send the job again"
            )
        found.append(OutputFile(node_id, path, kind))
    return found


def find_texts(outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the texts that nodes such as ``PreviewAny`` reported."""
    return [item for _node_id, item in _items(outputs, "text") if isinstance(item, str)]


def sniff(head: bytes) -> tuple[str, str]:
    """Tell what a file is by its first bytes.

    Args:
        head: at least the first 16 bytes.

    Returns:
        Its kind (``images``, ``videos``, ``audio`` or ``files``) and its MIME type.
    """
    for offset, magic, kind, mime_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind, mime_type
    return "files", "application/octet-stream"


_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "images", "image/png"),
    (0, b"\xff\xd8\xff", "images", "image/jpeg"),
    (8, b"WEBP", "images", "image/webp"),
    (0, b"GIF8", "images", "image/gif"),
    (0, b"<svg", "images", "image/svg+xml"),
    (4, b"ftyp", "videos", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "videos", "video/webm"),
    (0, b"fLaC", "audio", "audio/flac"),
    (0, b"OggS", "audio", "audio/ogg"),
    (0, b"ID3", "audio", "audio/mpeg"),
    (0, b"\xff\xfb", "audio", "audio/mpeg"),
    (8, b"WAVE", "audio", "audio/wav"),
    (0, b"glTF", "files", "model/gltf-binary"),
)


def _items(outputs: Mapping[str, Mapping[str, Any]], only: str | None = None) -> Iterator[tuple[str, Any]]:
    for node_id, reported in outputs.items():
        for key, value in reported.items():
            if isinstance(value, (list, tuple)) and only in (None, key):
                for item in value:
                    yield node_id, item
