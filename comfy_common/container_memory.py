"""Measures the memory of this container: its own limit, or the host's memory.

Needs psutil, so a command must not import this before the packages are installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["free_memory_mb", "memory_limit_bytes"]


@dataclass(frozen=True)
class CgroupFiles:
    """The files in which the kernel states the memory of a container.

    Attributes:
        limit: the file with the limit, in the folder of the control groups.
        used: the file with the memory in use, in the same folder.
        cached: the names in `memory.stat` of the memory that holds cached files.
    """

    limit: str
    used: str
    cached: tuple[str, str]


CGROUP = Path("/sys/fs/cgroup")
# Version 2 of the kernel's control groups, and version 1.
CGROUP_FILES = (
    CgroupFiles("memory.max", "memory.current", ("active_file", "inactive_file")),
    CgroupFiles(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
)


def free_memory_mb(cgroup: Path = CGROUP) -> float:
    """Measure how much more memory this container may take, in megabytes.

    That is what the host has free, or less if the container's own limit leaves less.
    """
    free_bytes = float(psutil.virtual_memory().available)
    for files in CGROUP_FILES:
        try:
            limit_bytes = float((cgroup / files.limit).read_text())
            used_bytes = float((cgroup / files.used).read_text())
            statistics = _pairs((cgroup / files.limit).with_name("memory.stat").read_text())
        except (OSError, ValueError):  # there is no limit ("max"), or the files have other names
            continue
        # The kernel takes cached files out of memory when it needs room.
        cached_bytes = sum(statistics.get(name, 0.0) for name in files.cached)
        free_bytes = min(free_bytes, limit_bytes - used_bytes + cached_bytes)
    return free_bytes / 1e6


def memory_limit_bytes(cgroup: Path = CGROUP) -> float:
    """Look up how much memory this container may use: its own limit, or else all of the host's."""
    limit_bytes = float(psutil.virtual_memory().total)
    for files in CGROUP_FILES:
        # No such file, or "max": there is no limit, or the files have other names.
        with suppress(OSError, ValueError):
            limit_bytes = min(limit_bytes, float((cgroup / files.limit).read_text()))
    return limit_bytes


def _pairs(text: str) -> Mapping[str, float]:
    pairs = (line.split() for line in text.splitlines())
    return {name: float(value) for name, value in pairs}
