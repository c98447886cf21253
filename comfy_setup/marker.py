"""Reads and writes markers: small files that say which step is finished, and its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def file_hash(path: Path) -> str:
    """Hash a small file.

    Args:
        path: an existing file.

    Returns:
        The sha256 in hex.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_marker(path: Path) -> dict[str, str]:
    """Read the marker of a finished step.

    Args:
        path: the marker.

    Returns:
        Its entries; empty if the file is missing or is not a marker.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def write_marker(path: Path, entries: Mapping[str, str]) -> None:
    """Write a marker. A reader never sees half of it.

    Args:
        path: the marker.
        entries: the inputs of the finished step.
    """
    part = path.with_suffix(".part")
    part.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
