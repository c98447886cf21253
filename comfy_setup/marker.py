"""Small files that say that a step is finished, and of what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def file_hash(path: Path) -> str:
    """Hash a small file.

    Args:
        path: a file that is there.

    Returns:
        Its sha256 in hex.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_stamp(path: Path) -> dict[str, str]:
    """Read what a finished step wrote of itself.

    Args:
        path: the stamp.

    Returns:
        Its entries; none if there is no such file or it is no stamp.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def write_stamp(path: Path, entries: Mapping[str, str]) -> None:
    """Write a stamp, whole or not at all.

    Args:
        path: the stamp.
        entries: what the finished step says of itself.
    """
    part = path.with_suffix(".part")
    part.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
