"""Posts results until RunPod accepts them: a lost result means a lost job."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from aiohttp import ClientError, ClientTimeout
from runpod.serverless.modules import rp_http

from comfy_common.text import megabytes
from comfy_worker.error_response import error_response
from comfy_worker.errors import DeliveryFailed, ResultTooLarge, WorkerError
from comfy_worker.outgoing import to_json_bytes
from comfy_worker.response.deliver import LESS_TEXT, MB

__all__ = ["ResultPoster", "envelope", "with_stop_pod", "within_limit"]

log = logging.getLogger(__name__)

# One try may take this long, and longer for a large body over a slow line.
TRY_S, SLOWEST_BYTES_PER_S = 25.0, 500_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
PATIENCE_S = 600.0
# With these, RunPod refuses the result for good. Any other status may be an outage.
FINAL_STATUSES = (400, 413, 422)
# These may also be final (no access, no such job), so the attempts end sooner.
DOUBTFUL_STATUSES, DOUBT_S = (401, 403, 404, 405, 410), 120.0

FEWER_FILES = "ask for smaller or fewer outputs, or configure storage (BUCKET_ENDPOINT_URL)"
# The keys under which the response formats have files as base64. A list has them without a key.
FILE_KEYS = ("", "image", "images", "image_base64", "image_url")


def envelope(answer: Any) -> dict[str, Any]:
    """Return the object that the SDK would post for a handler's answer.

    Args:
        answer: a job's result. If it is an object, its key ``error`` is the job's error, and the
            other keys are the output.
    """
    if not isinstance(answer, dict):
        return {"output": answer}
    output = {key: value for key, value in answer.items() if key not in ("error", "refresh_worker")}
    posted: dict[str, Any] = {"output": output} if output else {}
    if answer.get("error"):
        posted["error"] = answer["error"]
    return posted


def within_limit(posted: dict[str, Any], limit: int) -> bytes:
    """Return the body to post for a job; if it is too large for RunPod, the body of a short error.

    Args:
        posted: as :func:`envelope` makes it.
        limit: the maximum number of bytes that RunPod accepts.
    """
    body = to_json_bytes(posted)
    if len(body) <= limit:
        return body
    text_bytes = len(body) - file_bytes(posted.get("output"))
    advice = LESS_TEXT if text_bytes > limit else FEWER_FILES
    return _error_body(
        ResultTooLarge(
            f"the answer is {megabytes(len(body))}, but RunPod accepts at most "
            f"{megabytes(limit)}; {advice}",
            [{"size_mb": len(body) / MB, "limit_mb": limit / MB}],
        )
    )


def file_bytes(value: Any, key: str = "") -> int:
    """Count the bytes of base64 in an output, whatever its response format is.

    Args:
        value: the output, or a part of it.
        key: the key of that part; empty for the output itself, and for the entries of its list.
    """
    if isinstance(value, str):
        return len(value) if key in FILE_KEYS else 0
    if isinstance(value, (list, tuple)):
        return sum(file_bytes(entry, key) for entry in value)
    if not isinstance(value, dict):
        return 0
    if value.get("type") == "base64" and isinstance(value.get("data"), str):
        return len(value["data"])
    # An empty key means a list of files, not an object whose key is empty.
    return sum(file_bytes(part, name or "?") for name, part in value.items())


def with_stop_pod(body: bytes) -> bytes:
    """Add a request for a fresh worker to a body."""
    return json.dumps({**json.loads(body), "stopPod": True}, ensure_ascii=False).encode()


def _error_body(error: WorkerError) -> bytes:
    return to_json_bytes(envelope(error_response(error)))


class ResultPoster:
    """Posts the results of jobs.

    Args:
        session: the SDK's HTTP session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    async def post(self, job_id: str, body: bytes, *, is_stream: bool = False) -> bool:
        """Post a job's result; repeat until RunPod accepts it.

        Args:
            job_id: RunPod's id of the job.
            body: JSON in UTF-8. If RunPod refuses it for good, a short error is posted instead.
            is_stream: whether values of the job were streamed before.

        Returns:
            Whether RunPod accepted the body or the short error.
        """
        status = await self._insist(job_id, body, is_stream)
        if status not in FINAL_STATUSES:
            return status is not None
        size = megabytes(len(body))
        if status == 413:
            # RunPod does not say what its limit is. So the advice is about the larger part.
            is_mostly_text = file_bytes(json.loads(body).get("output")) < len(body) / 2
            advice = LESS_TEXT if is_mostly_text else FEWER_FILES
            error: WorkerError = ResultTooLarge(
                f"RunPod refused the result of {size} as too large (HTTP 413); {advice}"
            )
        else:
            error = DeliveryFailed(
                f"RunPod refused the result of {size} (HTTP {status}); send the job again"
            )
        status = await self._insist(job_id, _error_body(error), is_stream)
        return status is not None and status not in FINAL_STATUSES

    async def _insist(self, job_id: str, body: bytes, is_stream: bool) -> int | None:
        """Post until RunPod accepts the body or refuses it for good; None if all attempts fail."""
        url = rp_http.JOB_DONE_URL.replace("$ID", job_id) + f"&isStream={str(is_stream).lower()}"
        timeout_s = TRY_S + len(body) / SLOWEST_BYTES_PER_S
        began = time.monotonic()
        pause_s = FIRST_PAUSE_S
        doubtful_since: float | None = None
        while True:
            outcome = await self.try_once(url, job_id, body, timeout_s)
            now = time.monotonic()
            if isinstance(outcome, int):
                if 200 <= outcome < 300 or outcome in FINAL_STATUSES:
                    return outcome
                doubtful_since = (doubtful_since or now) if outcome in DOUBTFUL_STATUSES else None
            is_hopeless = doubtful_since is not None and now - doubtful_since > DOUBT_S
            if is_hopeless or now - began > PATIENCE_S:
                log.error(
                    "gave up posting the result: %s", outcome, extra={"action": "result.lost"}
                )
                return None
            log.warning(
                "RunPod did not take the result (%s); trying again in %.1f s",
                outcome,
                pause_s,
                extra={"action": "result.retry"},
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def try_once(self, url: str, job_id: str, body: bytes, timeout_s: float) -> int | str:
        """Post once.

        Returns:
            The status of the answer, or in words why there was none.
        """
        headers = {
            "charset": "utf-8",
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Request-ID": job_id,
        }
        options = {"timeout": ClientTimeout(total=timeout_s), "allow_redirects": False}
        try:
            async with self._session.post(url, data=body, headers=headers, **options) as answer:
                status: int = answer.status
                return status
        except asyncio.TimeoutError:
            return f"no answer within {timeout_s:.0f} s"
        except (ClientError, OSError) as error:
            return f"{type(error).__name__}: {error}"
