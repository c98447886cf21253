"""Finds the files and texts that output nodes reported, and files that they did not report.

The type of a file is detected from its content, since ComfyUI reports videos and animations under
``images`` too.
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

# Reported texts that no client wants: file names, paths and addresses in the editor, data URIs.
NO_TEXT = re.compile(
    r"[^\s/\\]+\.(png|jpe?g|webp|gif|mp4|webm|mov|mkv|wav|mp3|flac|ogg|opus"
    r"|glb|gltf|obj|fbx|stl|ply|splat|latent)"
    r"|(/|data:|blob:)\S*",
    re.IGNORECASE,
)
# Only so many characters of a text are compared with these patterns.
MAX_NO_TEXT = 4096
# MIME types of texts by the suffix of their file.
TEXT_TYPES = {
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".json": "application/json",
}
# A list of more texts than these, one character each, is a text that was taken apart.
MANY_CHARACTERS = 3


@dataclass(frozen=True)
class OutputFile:
    """A file that a node wrote.

    Attributes:
        node_id: the node that reported it.
        path: the file on disk.
        type: ComfyUI's name of the folder, ``output`` or ``temp``.
        shape: height, width and channels of a file with raw pixels; None for any other file.
    """

    node_id: str
    path: Path
    type: str
    shape: tuple[int, int, int] | None = None


def find_files(
    outputs: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> list[OutputFile]:
    """List every file that the output nodes of a prompt reported.

    Some nodes report a file under two keys, for different versions of the editor. It counts once.

    Args:
        outputs: by node id, what each node reported:
            ``{"images": [{filename, subfolder, type, raw_shape?}], ...}``.
        folders: ComfyUI's folders by ``type``.

    Raises:
        NoOutput: a reported file does not exist.
    """
    files = []
    for node_id, item in _items(outputs):
        if not isinstance(item, dict) or "filename" not in item:
            continue
        folder_type = str(item.get("type") or "output")
        folder = folders.get(folder_type)
        if folder is None:  # `input`: a node that shows its own input file
            continue
        path = _written_file(folder, str(item.get("subfolder") or ""), str(item["filename"]))
        if path is None:
            raise NoOutput(
                f"node {node_id} reported the file {brief(item['filename'])}, "
                "but it does not exist; "
                "send the job again"
            )
        height, width, channels = item.get("raw_shape") or (0, 0, 0)
        shape = (height, width, channels) if channels else None
        files.append(OutputFile(node_id, path, folder_type, shape))
    return list(dict.fromkeys(files))


def _written_file(folder: Path, subfolder: str, filename: str) -> Path | None:
    """Find the file that a node reported; None if the folder does not have it.

    Some nodes report another subfolder than they wrote to. Then the file counts if it is the only
    one of that name in the job's own folder.
    """
    path = Path(os.path.normpath(folder / subfolder / filename))
    if not path.is_relative_to(folder) or "\0" in str(path):
        return None
    if path.is_file():
        return path
    parts = path.relative_to(folder).parts
    if len(parts) < 2:  # not in a job's own folder
        return None
    others = (folder / parts[0]).rglob("*")
    same_name = [other for other in others if other.name == path.name and other.is_file()]
    return same_name[0] if len(same_name) == 1 else None


def find_unreported(folder: Path, node_id: str) -> list[OutputFile]:
    """List all files of a job's own folder, whichever node wrote them.

    Args:
        folder: the job's folder below ComfyUI's output folder.
        node_id: the node that the files are attributed to.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [OutputFile(node_id, path, "output") for path in paths]


def find_texts(outputs: Mapping[str, Mapping[str, Any]]) -> list[Text]:
    """List the texts that nodes reported under ``text``, as ``PreviewAny`` does, or another key."""
    texts = []
    for node_id, reported in outputs.items():
        for key, value in reported.items():
            for text in _texts_in(value):
                if key == "text" or not _is_no_text(text):
                    size = len(text.encode(errors="replace"))
                    texts.append(Text(data=text, node_id=node_id, bytes=size))
    return texts


def _texts_in(value: Any) -> list[str]:
    """Return the texts in a value that a node reported: a list of texts, or a list of lists."""
    if not isinstance(value, (list, tuple)):
        return []
    texts = []
    for item in value:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, (list, tuple)):
            texts += [part for part in item if isinstance(part, str)]
    # Where a node reports a bare text in place of a list, ComfyUI makes a list of its characters.
    lengths = set(map(len, texts))
    is_taken_apart = len(texts) > MANY_CHARACTERS and lengths == {1}
    return ["".join(texts)] if is_taken_apart else texts


def _is_no_text(text: str) -> bool:
    """Return whether a reported text only serves the editor."""
    return not text or NO_TEXT.fullmatch(text[:MAX_NO_TEXT]) is not None


def sniff(head: bytes, suffix: str = "") -> tuple[str, str]:
    """Detect the type of a file from its first bytes.

    Args:
        head: the first 1024 bytes, or all of a shorter file.
        suffix: of the file's name, such as ``.csv``; it tells texts apart, which begin with
            anything.

    Returns:
        The list of the result that the file belongs to (``images``, ``videos``, ``audio`` or
        ``files``), and its MIME type.
    """
    for offset, magic, result_list, mime_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return result_list, mime_type
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<svg" in head:
        return "images", "image/svg+xml"
    if suffix in TEXT_TYPES and b"\0" not in head:
        return "files", TEXT_TYPES[suffix]
    return "files", "application/octet-stream"


# The offset of a magic number, the number, and the two results of :func:`sniff`.
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
    (0, b"\xff\xfa", "audio", "audio/mpeg"),
    (0, b"\xff\xfb", "audio", "audio/mpeg"),
    (0, b"\xff\xf2", "audio", "audio/mpeg"),
    (0, b"\xff\xf3", "audio", "audio/mpeg"),
    (8, b"WAVE", "audio", "audio/wav"),
    (0, b"glTF", "files", "model/gltf-binary"),
)


def _items(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield each entry of each list that a node reported, with the node's id."""
    for node_id, reported in outputs.items():
        for value in reported.values():
            if isinstance(value, (list, tuple)):
                for item in value:
                    yield node_id, item
