"""Checks that this container has enough disk and memory left.

Before a job is refused, data that is kept only to save time, such as loaded models, is removed.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from comfy_common.container_memory import free_memory_mb
from comfy_worker.errors import DiskFull, OutOfMemory

__all__ = ["ensure_disk", "ensure_memory"]

log = logging.getLogger(__name__)

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
        free_mb: measures how much is free; `free_memory_mb` if absent.

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
