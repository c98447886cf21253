"""Turns an exception into a job's answer and a log line.

The only module where keys and this machine's paths are taken out of what a client reads, and where
a client's words are kept out of the log.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

from comfy_worker.errors import DiskFull, InternalError, WorkerError, error_result
from comfy_worker.logs import redact
from comfy_worker.outgoing import safe, shortened, within
from comfy_worker.server_paths import ServerPaths

__all__ = ["error_response"]

log = logging.getLogger(__name__)

SENTENCE_LENGTH = 2_000


def error_response(error: Exception, paths: ServerPaths | None = None) -> dict[str, Any]:
    """Log an error, and return it as a job's result.

    Args:
        error: what ended the job; anything but a :class:`WorkerError` is a fault of the worker
            or its disk.
        paths: this machine's folders, which clients read under other names.

    Returns:
        ``{"error", "code", "message", "details"}``, however much the error had to say: long texts
        are cut, and the last of many details counts those that are left out.
    """
    if not isinstance(error, WorkerError):
        log.error("fault of the worker", exc_info=error, extra={"action": "job.fault"})
        error = _fault(error)
    else:
        log.warning("%s", shortened(error.log_text), extra={"action": "job.failed"})
        log.debug("%s", shortened(error.sentence), extra={"action": "job.error"})
    folders = paths or ServerPaths({})

    def public(text: str) -> str:
        return folders.strip(redact(text))

    # The code stays as it is: a client may choose a key that reads like one.
    sentence = shortened(error.sentence, SENTENCE_LENGTH, public)
    answer: dict[str, Any] = safe(error_result(error.code, sentence, within(error.details, public)))
    return answer


def _fault(error: Exception) -> WorkerError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "the worker's disk is full; send less at once, or give the endpoint a larger container "
            "disk",
            [{"problem": error.strerror}],
        )
    return InternalError("the worker has a bug; report it with the traceback from the worker's log")
