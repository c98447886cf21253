"""Why a ComfyUI ended: from its exit status, its log, and the kernel's count of those killed for want of memory.

Owns the words. Starts and ends nothing.
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterable
from pathlib import Path

from comfy_worker.comfyui.events import Failed
from comfy_worker.errors import DiskFull, ExecutionFailed, GpuFault, OutOfMemory, WorkerError, brief

__all__ = ["ending", "log_cause", "node_error", "oom_kills"]

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


log = logging.getLogger(__name__)


LESS = "ask for a smaller size, a smaller batch or an fp8 model"


DISK = re.compile(r"No space left on device|Disk quota exceeded")


GPU_MEMORY = re.compile(r"OutOfMemoryError|(CUDA|HIP) (error: )?out of memory|STATUS_ALLOC_FAILED")


MEMORY = re.compile(r"MemoryError|can't allocate memory|not enough memory|Cannot allocate memory")


# Those that are left out end with the call that met them; after any other every later call fails as well.
GPU = re.compile(r"(CUDA|HIP) error: (?!invalid (argument|configuration|device function)|no kernel image)")


def node_error(event: Failed) -> WorkerError:
    """The error for a node that raised."""
    details = [
        {
            "node_id": event.node_id,
            "class_type": event.class_type,
            "exception_type": event.exception_type,
            "message": event.message,
        }
    ]
    log.warning("node failed: %s", "".join(event.traceback), extra={"action": "prompt.failed"})
    node, said = f"node {event.node_id} ({event.class_type})", f"{event.exception_type}: {event.message}"
    if DISK.search(said):
        advice = "ask for less at once, or give the endpoint a larger container disk"
        return DiskFull(f"{node} found no room on the worker's disk; {advice}", details)
    if GPU_MEMORY.search(said):
        return OutOfMemory(f"{node} ran out of GPU memory; {LESS}", details)
    if MEMORY.search(said):
        return OutOfMemory(f"{node} ran out of the machine's memory; {LESS}", details)
    if GPU.search(said):
        advice = "ComfyUI is started anew; send the job again"
        return GpuFault(f"{node} met an error after which the GPU works no more; {advice}", details)
    return ExecutionFailed(f"{node} failed with {said}", details)
