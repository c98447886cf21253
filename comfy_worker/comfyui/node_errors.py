"""What a node's exception means: its own fault, no memory, no disk, or a GPU that works no more.

Owns the words by which torch, CUDA and the system tell these apart.
"""

from __future__ import annotations

import logging
import re

from comfy_worker.comfyui.events import Failed
from comfy_worker.errors import DiskFull, ExecutionFailed, GpuFault, OutOfMemory, WorkerError

__all__ = ["node_error"]

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
