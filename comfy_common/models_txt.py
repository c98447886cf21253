"""models.txt: which weights, from where, into which folder.

The one home of its format, for `comfy_setup`, which fetches them, and `comfy_worker`, which says where one can be
got. Standard library only.
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
    """A line of models.txt that is none."""


@dataclass(frozen=True)
class Entry:
    """A line of models.txt.

    Args:
        section: the `[name]` that it stands under, empty above the first.
        path: folder and file under a model root, as "checkpoints/x.safetensors".
        url: where it comes from.
        sha256: of the file in lower-case hex, empty if not given.
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
        Its entries in order.

    Raises:
        ModelsTxtError: a line is none of these.
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
        path, url, digest = [*words, "", ""][:3]
        relative = re.fullmatch(r"[^/]+/.*[^/]", path) and ".." not in Path(path).parts
        if len(words) > 3 or not relative or "://" not in url or not re.fullmatch(SHA256, digest):
            raise ModelsTxtError(
                f"models.txt, line {number}: write `folder/file  URL  [sha256:...]`, a `[name]` or a `# comment`"
            )
        entries.append(Entry(section, path, url, digest.removeprefix("sha256:").lower()))
    return entries
