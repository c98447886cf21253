"""Reads models.txt, which lists model files, their URLs and their folders.

`comfy_setup` downloads the files; `comfy_worker` tells clients where a missing file can be
downloaded. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from comfy_common import paths
from comfy_common.errors import SetupError

MODELS_TXT = paths.REPO / "models.txt"
SHA256 = r"(sha256:[0-9a-fA-F]{64})?"


class ModelsTxtError(SetupError):
    """A line of models.txt cannot be read."""


@dataclass(frozen=True)
class Entry:
    """A line of models.txt.

    Args:
        section: the `[name]` above it; empty before the first section.
        path: folder and file below a model root, such as "checkpoints/x.safetensors".
        url: the source of the file.
        sha256: the file's hash in lower-case hex; empty if the line has none.
    """

    section: str
    path: str
    url: str
    sha256: str


def parse_models(text: str) -> list[Entry]:
    """Read models.txt.

    Args:
        text: lines `folder/file  URL  [sha256:...]`, `#` comments, `[name]` sections.

    Returns:
        The entries in order.

    Raises:
        ModelsTxtError: a line has another form.
    """
    entries = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        if name := re.fullmatch(r"\[([\w.-]+)\]", " ".join(words)):
            section = name[1]
            continue
        entry = _entry(section, words)
        if entry is None:
            raise ModelsTxtError(
                f"models.txt, line {number}: write `folder/file  URL  [sha256:...]`, a `[name]` or "
                "a `# comment`"
            )
        entries.append(entry)
    return entries


def _entry(section: str, words: list[str]) -> Entry | None:
    """The entry of a line; None if the line has another form."""
    if len(words) > 3:
        return None
    path, url, digest = [*words, "", ""][:3]
    if not re.fullmatch(r"[^/]+/.*[^/]", path) or ".." in Path(path).parts:
        return None
    if "://" not in url or not re.fullmatch(SHA256, digest):
        return None
    return Entry(section, path, url, digest.removeprefix("sha256:").lower())
