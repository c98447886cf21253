"""Finds the files and texts that output nodes reported, and files that they wrote without a word.

The kind of a file is decided by its content: ComfyUI reports videos and animations under ``images`` too.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_worker.errors import NoOutput, brief
from comfy_worker.response.schema import Text

__all__ = ["OutputFile", "find_files", "find_texts", "find_unreported", "sniff"]

# What nodes report as text that is none: a file's name, a path or address within the editor, a file as text.
NO_TEXT = re.compile(
    r"[^\s/\\]+\.(png|jpe?g|webp|gif|mp4|webm|mov|mkv|wav|mp3|flac|ogg|opus|glb|gltf|obj|fbx|stl|ply|splat|latent)"
    r"|(/|data:|blob:)\S*",
    re.IGNORECASE,
)
MAX_NO_TEXT = 4096
# Of so many single signs nobody makes a list.
MANY_SIGNS = 3


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
        path = _written_file(folder, str(item.get("subfolder") or ""), str(item["filename"]))
        if path is None:
            raise NoOutput(
                f"node {node_id} reported {brief(item['filename'])}, and there is no such file; send the job again"
            )
        height, width, channels = item.get("raw_shape") or (0, 0, 0)
        found.append(OutputFile(node_id, path, kind, (height, width, channels) if channels else None))
    return found


def _written_file(folder: Path, subfolder: str, filename: str) -> Path | None:
    """The file that a node means; None where there is none in the folder.

    Some nodes report a subfolder otherwise than they wrote it. Then the file of that name counts which
    is the only one in the job's own folder.
    """
    path = Path(os.path.normpath(folder / subfolder / filename))
    if not path.is_relative_to(folder) or "\0" in str(path):
        return None
    if path.is_file():
        return path
    parts = path.relative_to(folder).parts
    if len(parts) < 2:  # it would lie outside of the job's own folder
        return None
    own_folder = folder / parts[0]
    same_name = [other for other in own_folder.rglob("*") if other.name == path.name and other.is_file()]
    return same_name[0] if len(same_name) == 1 else None


def find_unreported(folder: Path, node_id: str) -> list[OutputFile]:
    """List what lies in a job's own folder, whoever wrote it.

    Args:
        folder: the job's, below ComfyUI's output folder.
        node_id: the node that is named as the one that wrote it.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [OutputFile(node_id, path, "output") for path in paths]


def find_texts(outputs: Mapping[str, Mapping[str, Any]]) -> list[Text]:
    """List the texts that nodes reported: under ``text`` as ``PreviewAny`` does, or under any other key."""
    return [
        Text(data=text, node_id=node_id, bytes=len(text.encode(errors="replace")))
        for node_id, reported in outputs.items()
        for key, value in reported.items()
        for text in _texts_in(value)
        if key == "text" or not _is_no_text(text)
    ]


def _texts_in(value: Any) -> list[str]:
    """The texts in what a node reported under a key: a list of them, or a list of lists."""
    if not isinstance(value, (list, tuple)):
        return []
    texts = []
    for item in value:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, (list, tuple)):
            texts += [part for part in item if isinstance(part, str)]
    # A node that reports a text and no list of it: ComfyUI takes it apart.
    is_taken_apart = len(texts) > MANY_SIGNS and all(len(text) == 1 for text in texts)
    return ["".join(texts)] if is_taken_apart else texts


def _is_no_text(text: str) -> bool:
    return not text or NO_TEXT.fullmatch(text[:MAX_NO_TEXT]) is not None


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


def _items(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for node_id, reported in outputs.items():
        for value in reported.values():
            if isinstance(value, (list, tuple)):
                for item in value:
                    yield node_id, item
