"""What a job's client, and the log, get to hear of an error.

Owns what of it is nobody else's business: keys, and what a client wrote.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import DiskFull, InputError, InternalError, WorkerError, WorkflowRefused
from comfy_worker.logs import without_secrets

__all__ = ["secrets_of", "tell_failure"]

log = logging.getLogger(__name__)


def tell_failure(error: Exception) -> dict[str, Any]:
    """Log an error, and make it a job's result.

    Args:
        error: whatever ended the job; one that is no :class:`WorkerError` is a fault of the worker or its disk.
    """
    if not isinstance(error, WorkerError):
        log.error("fault of the worker", exc_info=error, extra={"action": "job.fault"})
        error = _fault(error)
    else:
        # What a client wrote may be in the sentence of an input error.
        told = error.code if isinstance(error, (InputError, WorkflowRefused)) else f"{error.code}: {error}"
        log.warning("%s", told, extra={"action": "job.failed"})
        log.debug("%s", error, extra={"action": "job.error"})
    return dict(_without_secrets(error.to_result()))


def secrets_of(job: Mapping[str, Any]) -> list[str]:
    """The keys that a job brings: for comfy.org, and for its own storage."""
    given, own = job.get("input"), job.get("s3Config")
    keys = [given.get("comfy_org_api_key") if isinstance(given, dict) else None]
    keys += [own.get("accessSecret") if isinstance(own, dict) else None]
    return [str(key) for key in keys if key is not None]


def _without_secrets(value: Any) -> Any:
    """JSON, with what is concealed blotted out."""
    if isinstance(value, dict):
        return {key: _without_secrets(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    return without_secrets(value) if isinstance(value, str) else value


def _fault(error: Exception) -> WorkerError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "the worker's disk is full; send less at once, or give the endpoint a larger container disk",
            [{"problem": error.strerror}],
        )
    return InternalError("the worker made a mistake; its log has the traceback")
