"""Checks that this container has enough disk and memory left.

Before a job is refused, data that is kept only to save time, such as loaded models, is removed.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from comfy_worker.errors import DiskFull, OutOfMemory

__all__ = ["ensure_disk", "ensure_memory", "free_memory_mb", "memory_limit_bytes"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CgroupFiles:
    """Where the kernel tells the memory of a container."""

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
SETTLE_S = 10.0


def ensure_disk(
    folder: Path, floor_mb: float, reclaim: Callable[[float], object] = lambda _missing_mb: None
) -> None:
    """Check that a file system has enough free space; make some if it does not.

    Args:
        folder: a folder on it.
        floor_mb: how much must be free, in megabytes.
        reclaim: gets the number of missing megabytes, and removes files that can be fetched again.

    Raises:
        DiskFull: there is still less.
    """
    for attempt in (reclaim, None):
        free_mb = shutil.disk_usage(folder).free / 1e6
        if free_mb >= floor_mb:
            return
        if attempt is not None:
            attempt(floor_mb - free_mb)
    raise DiskFull(
        f"the worker's disk has {free_mb:.0f} MB free but needs {floor_mb:.0f} MB; give the "
        "endpoint a larger container disk, or lower MIN_FREE_DISK_MB",
        [{"free_mb": round(free_mb), "needed_mb": round(floor_mb)}],
    )


def ensure_memory(
    floor_mb: float, reclaim: Callable[[], object], *, free_mb: Callable[[], float] | None = None
) -> None:
    """Check that the container has enough host memory left; make some if it does not.

    Args:
        floor_mb: how much must be free, in megabytes.
        reclaim: unloads models and cached results; their memory may be free only a while later.
        free_mb: measures how much is free; :func:`free_memory_mb` if absent.

    Raises:
        OutOfMemory: there is still less.
    """
    free_mb = free_mb or free_memory_mb
    if free_mb() >= floor_mb:
        return
    log.warning("host memory is low; unloading models", extra={"action": "memory.low"})
    reclaim()
    deadline = time.monotonic() + SETTLE_S
    while (left := free_mb()) < floor_mb:
        if time.monotonic() > deadline:
            raise OutOfMemory(
                f"the worker has {left:.0f} MB of host memory free but needs {floor_mb:.0f} MB; "
                "give the endpoint a machine with more memory, or use smaller models",
                [{"free_mb": round(left), "needed_mb": round(floor_mb)}],
            )
        time.sleep(0.1)


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
