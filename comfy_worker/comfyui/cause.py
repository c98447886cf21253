"""Why a ComfyUI ended: from its exit status, its log, and the kernel's count of those killed for want of memory.

Owns the words. Starts and ends nothing.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from pathlib import Path

from comfy_worker.errors import brief

__all__ = ["ending", "log_cause", "oom_kills"]

LINE_LENGTH = 200
CGROUP = Path("/sys/fs/cgroup")
# Version 2 of the kernel's control groups, and version 1.
OOM_COUNTS = ("memory.events", "memory/memory.oom_control")

# What the last lines of a log are searched for, from the last line up.
CAUSE = re.compile(
    r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|AcceleratorError|No CUDA|NVIDIA driver"
    r"|MemoryError|out of memory|Cannot allocate memory|No space left on device"
    r"|No module named|ImportError|ModuleNotFoundError|IMPORT FAILED|unrecognized arguments"
    r"|Segmentation fault|address already in use|^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)\b"
)


def ending(status: int | None, *, out_of_memory: bool = False) -> str:
    """How a process ended, in words that follow its name.

    Args:
        status: its exit status, 128 + signal where one killed it; None: it still runs.
        out_of_memory: whether the kernel killed somebody for want of memory meanwhile.
    """
    if status is None or status == 0:
        return "ended"
    if status == 128 + signal.SIGKILL and out_of_memory:
        return "was killed since the machine's memory ran out"
    try:
        return f"was killed by {signal.Signals(status - 128).name}"
    except ValueError:
        return f"ended with exit status {status}"


def log_cause(lines: Iterable[str]) -> str:
    """The last line of a log that names a cause; empty where none does."""
    return brief(next((line.strip() for line in reversed([*lines]) if CAUSE.search(line)), ""), LINE_LENGTH)


def oom_kills(cgroup: Path = CGROUP) -> int:
    """How many processes of this container the kernel has killed for want of memory; 0 where it does not say."""
    for name in OOM_COUNTS:
        try:
            found = re.search(r"^oom_kill (\d+)", (cgroup / name).read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0
