"""Leaves out the SDK's own checks of the GPU: this worker's checks ask the driver instead.

The SDK's checks import torch in the handler and open CUDA there. That takes seconds of the start
and several hundred megabytes of the GPU's memory for as long as the worker lives.
"""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping

from runpod.serverless.modules import rp_system_fitness

__all__ = ["leave_out_gpu_checks"]

log = logging.getLogger(__name__)

# The SDK's own switch for its test program; "false" in the environment brings its checks back.
SWITCH = "RUNPOD_SKIP_GPU_CHECK"


def leave_out_gpu_checks(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have the SDK register no check of the GPU; its checks of memory, disk and network stay.

    Args:
        environ: the environment, which the SDK reads when it runs its checks.
    """
    if environ.setdefault(SWITCH, "true").lower() != "true":
        return
    if not callable(getattr(rp_system_fitness, "gpu_available", None)):
        log.warning(
            "cannot skip the SDK's checks of the GPU; the start takes longer",
            extra={"action": "worker.sdk_gpu_checks"},
        )
        return
    rp_system_fitness.gpu_available = _has_no_gpu


def _has_no_gpu() -> bool:
    return False
