"""Reads models.txt, which lists model files, their URLs and their folders.

`comfy_setup` downloads the files; `comfy_worker` tells clients where a missing file can be
downloaded. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_common import paths
from comfy_common.errors import SetupError

MODELS_TXT = paths.REPO / "models.txt"
SHA256 = re.compile(r"sha256:([0-9a-fA-F]{64})")
SIZE = re.compile(r"size:(\d+(?:\.\d+)?)(kB|MB|GB)")
UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
SECTION_WORD = re.compile(r"(family|licence):(\S+)")


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
        size: about how many bytes the file has; 0 if the line does not say.
    """

    section: str
    path: str
    url: str
    sha256: str
    size: int = 0


@dataclass(frozen=True)
class Section:
    """The line that begins a section of models.txt.

    Args:
        name: a template's name.
        size: about how many bytes all its files have; 0 if the line does not say.
        families: names for several sections, such as "wan22".
        licence: of the models; empty if the line does not say.
    """

    name: str
    size: int = 0
    families: tuple[str, ...] = ()
    licence: str = ""


def parse_models(text: str) -> list[Entry]:
    """Read the entries of models.txt.

    Args:
        text: lines `folder/file  URL  [sha256:...] [size:6.9GB]`, `#` comments, and
            `[name] [size:...] [family:...] [licence:...]` before the lines of a section.

    Returns:
        The entries in order.

    Raises:
        ModelsTxtError: a line has another form.
    """
    return [line for line in _lines(text) if isinstance(line, Entry)]


def parse_sections(text: str) -> dict[str, Section]:
    """Read the sections of models.txt.

    Args:
        text: as for :func:`parse_models`.

    Returns:
        The sections by name, in order.

    Raises:
        ModelsTxtError: a line has another form.
    """
    return {line.name: line for line in _lines(text) if isinstance(line, Section)}


def total_size(section: Section | None, entries: Sequence[Entry]) -> int:
    """About how many bytes the files of a section have; 0 if that is not known.

    Args:
        section: what the section's own line says; None for files without a section.
        entries: all files of the section.
    """
    sizes = [entry.size for entry in entries]
    if all(sizes):
        return sum(sizes)
    return section.size if section is not None else 0


def _lines(text: str) -> list[Entry | Section]:
    found: list[Entry | Section] = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        read = _section(words) or _entry(section, words)
        if read is None:
            raise ModelsTxtError(
                f"models.txt, line {number}: write `folder/file  URL  [sha256:...] [size:6.9GB]`, "
                "a `[name]` or a `# comment`"
            )
        if isinstance(read, Section):
            section = read.name
        found.append(read)
    return found


def _section(words: list[str]) -> Section | None:
    """The section that a line begins; None if the line has another form."""
    name = re.fullmatch(r"\[([\w.-]+)\]", words[0])
    if name is None:
        return None
    size = 0
    facts: dict[str, list[str]] = {"family": [], "licence": []}
    for word in words[1:]:
        if stated := _size(word):
            size = stated
        elif fact := SECTION_WORD.fullmatch(word):
            facts[fact[1]].append(fact[2])
        else:
            return None
    licence = ", ".join(facts["licence"])
    return Section(name[1], size, tuple(facts["family"]), licence)


def _entry(section: str, words: list[str]) -> Entry | None:
    """The entry of a line; None if the line has another form."""
    path, url = [*words, ""][:2]
    if not re.fullmatch(r"[^/]+/.*[^/]", path) or ".." in Path(path).parts:
        return None
    if "://" not in url:
        return None
    sha256, size = "", 0
    for word in words[2:]:
        digest = SHA256.fullmatch(word)
        if digest and not sha256:
            sha256 = digest[1].lower()
        elif not size and _size(word):
            size = _size(word)
        else:
            return None
    return Entry(section, path, url, sha256, size)


def _size(word: str) -> int:
    """The bytes that a word such as "size:6.9GB" states; 0 for another word."""
    found = SIZE.fullmatch(word)
    return round(float(found[1]) * UNITS[found[2]]) if found else 0
