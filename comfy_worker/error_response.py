"""Turns an error into a job's answer and a line of the log.

Keys, and in the log what a client wrote, are nobody else's business and are taken out here.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import (
    DiskFull,
    InputError,
    InternalError,
    WorkerError,
    WorkflowRefused,
    error_result,
)
from comfy_worker.logs import without_secrets
from comfy_worker.outgoing import safe, shortened, within

__all__ = ["secrets_of", "tell_failure"]

log = logging.getLogger(__name__)

SENTENCE_LENGTH = 2_000


def tell_failure(error: Exception) -> dict[str, Any]:
    """Log an error, and make it a job's result.

    Args:
        error: whatever ended the job; one that is no :class:`WorkerError` is a fault of the worker or its disk.

    Returns:
        ``{"error", "code", "message", "details"}``, however much the error had to say: long texts are cut, and
        the last of many details counts those that are left out.
    """
    if not isinstance(error, WorkerError):
        log.error("fault of the worker", exc_info=error, extra={"action": "job.fault"})
        error = _fault(error)
    sentence = shortened(error.sentence, SENTENCE_LENGTH, without_secrets)
    # What a client wrote may be in the sentence of an input error.
    is_clients_own = isinstance(error, (InputError, WorkflowRefused))
    log.warning(
        "%s", error.code if is_clients_own else f"{error.code}: {sentence}", extra={"action": "job.failed"}
    )
    log.debug("%s", sentence, extra={"action": "job.error"})
    details = within(error.details, without_secrets)
    answer: dict[str, Any] = safe(error_result(error.code, sentence, details))
    return answer


def secrets_of(job: Mapping[str, Any]) -> list[str]:
    """The keys that a job brings: for comfy.org, and for its own storage."""
    given, own = job.get("input"), job.get("s3Config")
    keys = [given.get("comfy_org_api_key") if isinstance(given, dict) else None]
    keys += [own.get("accessSecret") if isinstance(own, dict) else None]
    return [str(key) for key in keys if key is not None]


def _fault(error: Exception) -> WorkerError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "the worker's disk is full; send less at once, or give the endpoint a larger container disk",
            [{"problem": error.strerror}],
        )
    return InternalError("the worker made a mistake; its log has the traceback")
