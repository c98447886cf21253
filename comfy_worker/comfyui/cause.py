"""Says why ComfyUI ended or why a node failed, in words and as an error with a code.

The evidence is ComfyUI's exit status, its log, what a node raised, and the kernel's count of
processes that it killed because memory ran out.
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comfy_common.fault_patterns import (
    DISK_FULL,
    GPU_BROKEN,
    GPU_ERROR,
    GPU_OUT_OF_MEMORY,
    HOST_OUT_OF_MEMORY,
    OUT_OF_MEMORY,
)
from comfy_worker.comfyui.events import Failed
from comfy_worker.errors import (
    DiskFull,
    ExecutionFailed,
    GpuFault,
    OutOfMemory,
    WorkerError,
    brief,
)

__all__ = ["USE_LESS_MEMORY", "ending", "log_cause", "node_error", "oom_kills"]

log = logging.getLogger(__name__)

USE_LESS_MEMORY = "ask for a smaller size, a smaller batch or an fp8 model"

LINE_LENGTH = 200
CGROUP = Path("/sys/fs/cgroup")
# Version 2 of the kernel's control groups, and version 1.
OOM_COUNTS = ("memory.events", "memory/memory.oom_control")

# A log line that says why ComfyUI ended.
CAUSE = re.compile(
    "|".join(
        (
            GPU_ERROR.pattern,
            OUT_OF_MEMORY.pattern,
            DISK_FULL.pattern,
            r"No module named|ImportError|ModuleNotFoundError|IMPORT FAILED",
            r"unrecognized arguments|Segmentation fault|address already in use",
            r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)\b",
        )
    )
)


def ending(status: int | None, *, out_of_memory: bool = False) -> str:
    """Describe how a process ended, in words that follow its name.

    Args:
        status: its exit status, 128 + signal if a signal killed it; None while it runs.
        out_of_memory: whether the kernel killed a process meanwhile because memory ran out.
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
    """Find the last line of a log that names a cause; empty if no line does."""
    for line in reversed([*lines]):
        if CAUSE.search(line):
            return brief(line.strip(), LINE_LENGTH)
    return ""


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Count the processes of this container that the kernel killed because memory ran out.

    The count is 0 where the kernel does not report it.
    """
    for name in OOM_COUNTS:
        try:
            statistics = (cgroup / name).read_text()
        except OSError:
            continue
        count = re.search(r"^oom_kill (\d+)", statistics, re.MULTILINE)
        if count:
            return int(count[1])
    return 0


def node_error(event: Failed, client_graph: Mapping[str, Any]) -> WorkerError:
    """Turn a node's exception into the error that the client reads.

    Args:
        event: what ComfyUI says of it.
        client_graph: the workflow as the client sent it: a class of ours may run in place of one
            of its classes, and the error names the client's. Empty: it is not known.
    """
    client_class = client_graph.get(event.node_id, {}).get("class_type")
    class_type = client_class or event.class_type
    details = [
        {
            "node_id": event.node_id,
            "class_type": class_type,
            "exception_type": event.exception_type,
            "message": event.message,
        }
    ]
    log.warning("node failed: %s", "".join(event.traceback), extra={"action": "prompt.failed"})
    node = f"node {event.node_id} ({class_type})"
    exception = f"{event.exception_type}: {event.message}"
    if DISK_FULL.search(exception):
        advice = "ask for less at once, or give the endpoint a larger container disk"
        return DiskFull(f"{node} filled the worker's disk; {advice}", details)
    if GPU_OUT_OF_MEMORY.search(exception):
        return OutOfMemory(f"{node} ran out of GPU memory; {USE_LESS_MEMORY}", details)
    if HOST_OUT_OF_MEMORY.search(exception):
        return OutOfMemory(f"{node} ran out of the machine's memory; {USE_LESS_MEMORY}", details)
    if GPU_BROKEN.search(exception):
        advice = "ComfyUI restarts; send the job again"
        return GpuFault(f"{node} met a GPU error that it cannot recover from; {advice}", details)
    return ExecutionFailed(f"{node} failed with {exception}", details)
