"""Recognises full disks, exhausted memory and broken GPUs in what programs write about them."""

from __future__ import annotations

import re

__all__ = [
    "DISK_FULL",
    "GPU_BROKEN",
    "GPU_ERROR",
    "GPU_OUT_OF_MEMORY",
    "HOST_OUT_OF_MEMORY",
    "OUT_OF_MEMORY",
]

DISK_FULL = re.compile(r"No space left on device|os error 28|Errno 28|Disk quota exceeded")

GPU_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|(CUDA|HIP) (error: )?out of memory|STATUS_ALLOC_FAILED"
)
HOST_OUT_OF_MEMORY = re.compile(
    r"MemoryError|can't allocate memory|not enough memory|Cannot allocate memory"
)
# Either of them; a log line often does not say which memory it was.
OUT_OF_MEMORY = re.compile(
    rf"{GPU_OUT_OF_MEMORY.pattern}|{HOST_OUT_OF_MEMORY.pattern}|out of memory"
)

GPU_ERROR = re.compile(
    r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|AcceleratorError|No CUDA|NVIDIA driver"
)
# After such an error every later call to the GPU fails as well. The errors that are left out end
# with the call that met them.
GPU_BROKEN = re.compile(
    r"(CUDA|HIP) error: (?!invalid (argument|configuration|device function)|no kernel image)"
)
