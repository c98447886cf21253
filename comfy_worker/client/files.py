"""Saves the files of a result under names that no other file has."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

from comfy_common.job_options import FORMATS
from comfy_common.pinned_http import PinnedClient, RequestRefused
from comfy_worker.client.errors import ClientError
from comfy_worker.client.transport import is_loopback

__all__ = ["Folder", "SaveFailed", "file_names", "result_files", "result_texts", "save_files"]

MEDIA_LISTS = ("images", "videos", "audio", "files")
DOWNLOAD_TRIES = 3
CHUNK_BYTES = 1 << 20
LONGEST_NAME = 150
FORBIDDEN_IN_NAME = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]")


class SaveFailed(ClientError):
    """A file of a result could not be downloaded, read or written."""


@dataclass
class Folder:
    """A folder for results. It may be shared by threads.

    Args:
        path: created when the first file is saved.
    """

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reserved: set[Path] = field(default_factory=set)

    def reserve(self, names: Sequence[str]) -> list[Path]:
        """Choose paths that nothing has and that no other call gets.

        Args:
            names: the wanted names. Where one is taken, -2 is added before its ending, and so on.
        """
        with self._lock:
            chosen = []
            for name in names:
                path = next(
                    candidate
                    for candidate in _candidates(self.path / safe_name(name))
                    if candidate not in self._reserved and not os.path.lexists(candidate)
                )
                self._reserved.add(path)
                chosen.append(path)
        return chosen

    def write(self, media: Mapping[str, Any], path: Path) -> None:
        """Write one file of a result. A file that is there is whole, also after a kill.

        Args:
            media: base64 or a link, as a result lists it.
            path: in this folder.

        Raises:
            SaveFailed: the file cannot be read or written.
        """
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                _copy(media, file.write, lambda: (file.seek(0), file.truncate()))
            part.replace(path)
        except OSError as error:
            raise SaveFailed(f"{path} cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                part.unlink()


def result_files(output: Any) -> list[dict[str, Any]]:
    """List the files of a result.

    Args:
        output: the output of a job. Another worker's output, whose form is not known, is one file
            with JSON.

    Returns:
        The entries of the result: `filename`, `type` and `data`. Empty if the result has no file.
    """
    if isinstance(output, Mapping) and any(name in output for name in MEDIA_LISTS):
        found: list[dict[str, Any]] = []
        for name in MEDIA_LISTS:
            entries = output.get(name)
            found += [dict(entry) for entry in _list(entries) if _is_media(entry)]
        if found or not any(output.get(name) for name in MEDIA_LISTS):
            return found
    if output is None:
        return []
    text = json.dumps(output, indent=2, ensure_ascii=False)
    data = base64.b64encode(text.encode()).decode("ascii")
    return [{"filename": "output.json", "type": "base64", "data": data}]


def file_names(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the own names of a result's files."""
    return [_file_name(media) for media in files]


def result_texts(output: Any) -> list[str]:
    """List the texts that a workflow showed."""
    entries = output.get("texts") if isinstance(output, Mapping) else None
    return [str(entry.get("data", "")) for entry in _list(entries) if isinstance(entry, Mapping)]


def save_files(output: Any, folder: Path, first: Path | None = None) -> list[Path]:
    """Save the files of a result. No file is ever replaced, except `first`.

    Args:
        output: the output of a job that has completed.
        folder: where the files are saved, under their own names as far as those are free.
        first: the path of the first file, in place of `folder`. If the file has another format
            than this path says, its own ending is added. The second file gets -2, and so on.

    Returns:
        The paths, in the order of the result.

    Raises:
        SaveFailed: a file cannot be read or written.
    """
    files = result_files(output)
    target = Folder(folder if first is None else first.parent)
    if first is None:
        written = target.reserve(file_names(files))
    else:
        written = [
            numbered(first, number, PurePosixPath(_file_name(media)).suffix)
            for number, media in enumerate(files, 1)
        ]
    for media, path in zip(files, written, strict=True):
        target.write(media, path)
    return written


def safe_name(name: str) -> str:
    """Return a name that stays in its folder and that every file system takes."""
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = FORBIDDEN_IN_NAME.sub("_", last).lstrip(".").strip()
    stem, dot, ending = cleaned.rpartition(".")
    if not dot:
        stem, ending = cleaned, ""
    while len(stem.encode()) > LONGEST_NAME:
        stem = stem[:-1]
    return f"{stem}{dot}{ending[:16]}" if stem else f"file{dot}{ending[:16]}"


def numbered(first: Path, number: int, ending: str) -> Path:
    """Return the path of a job's file, by the path of the first one."""
    if number > 1:
        return first.with_name(f"{first.stem}-{number}{ending}")
    if _is_same_format(first.suffix, ending):
        return first
    return first.with_name(first.name + ending)


def _is_same_format(suffix: str, ending: str) -> bool:
    """Whether two endings mean the same format, such as .jpg and .jpeg."""
    suffix, ending = suffix.lower(), ending.lower()
    return suffix == ending or (suffix in FORMATS and FORMATS[suffix] == FORMATS.get(ending))


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _file_name(media: Mapping[str, Any]) -> str:
    return str(media.get("filename") or "file")


def _is_media(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("data"), str)


def _copy(
    media: Mapping[str, Any], write: Callable[[bytes], Any], restart: Callable[[], Any]
) -> None:
    """Write the content of a result's file."""
    data = str(media["data"])
    if not data.startswith(("http://", "https://")):
        try:
            write(base64.b64decode(data.rpartition(",")[2], validate=True))
        except (binascii.Error, ValueError) as error:
            raise SaveFailed(f"{media.get('filename')} is not valid base64") from error
        return
    reason = ""
    for _attempt in range(DOWNLOAD_TRIES):
        restart()
        reason = _download(data, write)
        if not reason:
            return
    raise SaveFailed(f"{_file_name(media)} cannot be downloaded: {reason}")


def _download(url: str, write: Callable[[bytes], Any]) -> str:
    """Download a file once; returns why it failed, or an empty text."""
    client = PinnedClient(allow_private=True, use_proxies=not is_loopback(url))
    try:
        with client.open(url) as answer:
            response = answer.response
            if response.status != 200:
                return f"the storage answered HTTP {response.status}"
            expected = response.length
            received = 0
            while chunk := response.read(CHUNK_BYTES):
                received += len(chunk)
                write(chunk)
    except (ConnectionError, TimeoutError, HTTPException, RequestRefused) as error:
        return str(error) or type(error).__name__
    is_cut = expected is not None and received < expected
    return "the download ended early" if is_cut else ""
