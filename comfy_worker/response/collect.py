"""Finds the files and texts that output nodes reported.

The kind of a file is decided by its content: ComfyUI reports videos and animations under ``images`` too.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_worker.errors import NoOutput
from comfy_worker.response.schema import Text

__all__ = ["OutputFile", "find_files", "find_texts", "sniff"]


@dataclass(frozen=True)
class OutputFile:
    """A file that a node wrote.

    Attributes:
        node_id: the node that reported it.
        path: where it lies.
        type: ``output`` or ``temp``.
        shape: of raw pixels, (height, width, channels); None for a file of any other kind.
    """

    node_id: str
    path: Path
    type: str
    shape: tuple[int, int, int] | None = None


def find_files(outputs: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]) -> list[OutputFile]:
    """List every file that the output nodes of a prompt reported.

    Args:
        outputs: by node id, what each reported: ``{"images": [{filename, subfolder, type, raw_shape?}], ...}``.
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
        path = Path(os.path.normpath(folder / str(item.get("subfolder") or "") / str(item["filename"])))
        if not path.is_relative_to(folder) or not path.is_file():
            raise NoOutput(
                f"node {node_id} reported {item['filename']}, and there is no such file; send the job again"
            )
        height, width, channels = item.get("raw_shape") or (0, 0, 0)
        found.append(OutputFile(node_id, path, kind, (height, width, channels) if channels else None))
    return found


def find_texts(outputs: Mapping[str, Mapping[str, Any]]) -> list[Text]:
    """List the texts that nodes such as ``PreviewAny`` reported."""
    return [
        Text(data=item, node_id=node_id, bytes=len(item.encode(errors="replace")))
        for node_id, item in _items(outputs, "text")
        if isinstance(item, str)
    ]


def sniff(head: bytes) -> tuple[str, str]:
    """Tell what a file is by its first bytes.

    Args:
        head: the first 1024 bytes, or all there are.

    Returns:
        Its kind (``images``, ``videos``, ``audio`` or ``files``) and its MIME type.
    """
    for offset, magic, kind, mime_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind, mime_type
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<svg" in head:
        return "images", "image/svg+xml"
    return "files", "application/octet-stream"


_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "images", "image/png"),
    (0, b"\xff\xd8\xff", "images", "image/jpeg"),
    (8, b"WEBP", "images", "image/webp"),
    (0, b"GIF8", "images", "image/gif"),
    (0, b"BM", "images", "image/bmp"),
    (0, b"II*\0", "images", "image/tiff"),
    (0, b"MM\0*", "images", "image/tiff"),
    (0, b"v/1\x01", "images", "image/x-exr"),
    (4, b"ftypavif", "images", "image/avif"),
    (4, b"ftypavis", "images", "image/avif"),
    (4, b"ftypM4A", "audio", "audio/mp4"),
    (4, b"ftypqt", "videos", "video/quicktime"),
    (4, b"ftyp", "videos", "video/mp4"),
    (8, b"AVI ", "videos", "video/x-msvideo"),
    (0, b"\x1aE\xdf\xa3", "videos", "video/webm"),
    (0, b"fLaC", "audio", "audio/flac"),
    (0, b"OggS", "audio", "audio/ogg"),
    (0, b"ID3", "audio", "audio/mpeg"),
    *((0, bytes((0xFF, second)), "audio", "audio/mpeg") for second in (0xFA, 0xFB, 0xF2, 0xF3)),
    (8, b"WAVE", "audio", "audio/wav"),
    (0, b"glTF", "files", "model/gltf-binary"),
)


def _items(outputs: Mapping[str, Mapping[str, Any]], only: str | None = None) -> Iterator[tuple[str, Any]]:
    for node_id, reported in outputs.items():
        for key, value in reported.items():
            if isinstance(value, (list, tuple)) and only in (None, key):
                for item in value:
                    yield node_id, item
