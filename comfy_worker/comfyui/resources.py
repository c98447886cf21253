"""Room on this machine: how much disk and memory is left to this container, and what happens below a floor.

Knows nothing of jobs. What is kept only to save time, such as models in memory, goes before a job is refused.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from comfy_worker.errors import DiskFull, OutOfMemory

__all__ = ["ensure_disk", "ensure_memory", "free_memory_mb"]

log = logging.getLogger(__name__)

CGROUP = Path("/sys/fs/cgroup")
SETTLE_S = 10.0


def ensure_disk(
    folder: Path, floor_mb: float, reclaim: Callable[[float], object] = lambda _missing_mb: None
) -> None:
    """See to it that a file system has room.

    Args:
        folder: a folder on it.
        floor_mb: what must be free, in megabytes.
        reclaim: is told how many megabytes are missing, and removes what can be had again, the oldest first.

    Raises:
        DiskFull: there is less.
    """
    for attempt in (reclaim, None):
        free_mb = shutil.disk_usage(folder).free / 1e6
        if free_mb >= floor_mb:
            return
        if attempt is not None:
            attempt(floor_mb - free_mb)
    raise DiskFull(
        f"the worker's disk has {free_mb:.0f} MB free where {floor_mb:.0f} MB are needed; give the endpoint a "
        "larger container disk, or lower MIN_FREE_DISK_MB",
        [{"free_mb": round(free_mb), "needed_mb": round(floor_mb)}],
    )


def ensure_memory(
    floor_mb: float, reclaim: Callable[[], object], *, free_mb: Callable[[], float] | None = None
) -> None:
    """See to it that the container has host memory left.

    Args:
        floor_mb: what must be free, in megabytes.
        reclaim: has models and cached results given up; it may take a while until that shows.
        free_mb: how much is free; :func:`free_memory_mb` if absent.

    Raises:
        OutOfMemory: there is less.
    """
    free_mb = free_mb or free_memory_mb
    if free_mb() >= floor_mb:
        return
    log.warning("host memory is low; models are given up", extra={"action": "memory.low"})
    reclaim()
    deadline = time.monotonic() + SETTLE_S
    while (left := free_mb()) < floor_mb:
        if time.monotonic() > deadline:
            raise OutOfMemory(
                f"the worker has {left:.0f} MB of host memory free where {floor_mb:.0f} MB are needed; give the "
                "endpoint a machine with more memory, or use smaller models",
                [{"free_mb": round(left), "needed_mb": round(floor_mb)}],
            )
        time.sleep(0.1)


def free_memory_mb(cgroup: Path = CGROUP) -> float:
    """How much memory this container may still take, in megabytes: what the host has, or its own limit leaves."""
    free = float(psutil.virtual_memory().available)
    for limit, used, cached in (
        ("memory.max", "memory.current", ("active_file", "inactive_file")),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
        ),
    ):
        try:
            limit_bytes = float((cgroup / limit).read_text())
            used_bytes = float((cgroup / used).read_text())
            statistics = _pairs((cgroup / limit).with_name("memory.stat").read_text())
        except (OSError, ValueError):  # no such limit: "max", or another kind of machine
            continue
        free = min(free, limit_bytes - used_bytes + sum(statistics.get(name, 0.0) for name in cached))
    return free / 1e6


def _pairs(text: str) -> Mapping[str, float]:
    return {name: float(value) for name, value in (line.split() for line in text.splitlines())}
