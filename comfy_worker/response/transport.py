"""Puts files into a result, as base64 or as links, and calculates the size of that result."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.schema import Media
from comfy_worker.response.shrink import base64_size

__all__ = ["MediaByCategory", "Transport"]

MediaByCategory = dict[str, list[Media]]


@dataclass(frozen=True)
class Transport:
    """One way to send files: as links, or as base64 if there are no links."""

    files: Sequence[EncodedFile]
    seed: int | None
    links: Sequence[str] | None = None

    def media(self) -> MediaByCategory:
        """Return the media of the result. Reads the files if they are sent as base64."""
        if self.links is not None:
            return _media(self.files, "s3_url", self.links, self.seed)
        data = (base64.b64encode(file.read()).decode("ascii") for file in self.files)
        return _media(self.files, "base64", data, self.seed)

    def size(self, json_of: Callable[[MediaByCategory], bytes], *, with_files: bool = True) -> int:
        """Return how many bytes the result's JSON takes, with or without the files.

        Reads no file.
        """
        if self.links is not None:
            return len(json_of(self.media()))
        # A response format may contain a file's base64 never, once or twice. So the JSON is made
        # with a mark in place of each file, and the marks in it are counted.
        mark = uuid.uuid4().hex
        marks = [f"{mark}{position:08}" for position in range(len(self.files))]
        text = json_of(_media(self.files, "base64", marks, self.seed))
        positions = re.findall(rf"{mark}(\d{{8}})".encode(), text)
        size = len(text) - len(positions) * (len(mark) + 8)
        if with_files:
            file_sizes = [base64_size(file.size) for file in self.files]
            size += sum(file_sizes[int(position)] for position in positions)
        return size


def _media(
    files: Sequence[EncodedFile], media_type: str, data: Iterable[str], seed: int | None
) -> MediaByCategory:
    by_category: MediaByCategory = {}
    filenames = _distinct([file.filename for file in files])
    for file, filename, text in zip(files, filenames, data, strict=True):
        media = Media(
            filename=filename,
            type=media_type,
            data=text,
            mime_type=file.mime_type,
            node_id=file.node_id,
            bytes=file.size,
            width=file.width,
            height=file.height,
            seed=seed,
        )
        by_category.setdefault(file.category, []).append(media)
    return by_category


def _distinct(filenames: Sequence[str]) -> list[str]:
    """Return the names, with a number added if a name repeats.

    Nodes may save files of one name in different folders. A client that saves the files of a result
    in one folder must not overwrite any.
    """
    found: dict[str, None] = {}
    counts: dict[str, int] = {}
    for filename in filenames:
        path = PurePath(filename)
        distinct = filename
        while distinct in found:
            counts[filename] = counts.get(filename, 1) + 1
            distinct = f"{path.stem}-{counts[filename]}{path.suffix}"
        found[distinct] = None
    return list(found)
