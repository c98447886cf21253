"""A job of the local endpoint, with RunPod's names, limits and units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from .outputs import read_kept

__all__ = [
    "STREAM_LIMIT_BYTES",
    "BadRequest",
    "Job",
    "Status",
    "TooLarge",
    "limit_bytes",
    "new_job",
]

Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]

EXECUTION_TIMEOUT_MS = 600_000  # RunPod's defaults for a job without a policy
TTL_MS = 86_400_000
KEEP_RUN_S = 30 * 60.0
KEEP_RUNSYNC_S = 60.0

# RunPod's documented limits for requests and results, and for one value of a stream.
RUN_LIMIT_BYTES = 10_000_000
RUNSYNC_LIMIT_BYTES = 20_000_000
STREAM_LIMIT_BYTES = 1_000_000

_HANDED_TO_WORKER = ("input", "policy", "s3Config", "webhook")


class BadRequest(Exception):
    """A request is invalid (HTTP 400). The message is one sentence for the client."""


class TooLarge(BadRequest):
    """A body is larger than RunPod allows (HTTP 413)."""


@dataclass(eq=False)
class Job:
    """A job. Times are seconds of the clock of ``Jobs``."""

    job_id: str
    request: Any  # a dict; once the job has ended, what OutputStore.keep made of it
    created_s: float
    execution_timeout_s: float
    ttl_s: float
    keep_s: float
    webhook: str | None = None
    status: Status = "IN_QUEUE"
    worker_id: str | None = None
    started_s: float | None = None
    finished_s: float | None = None
    retries: int = 0
    output: Any = None
    error: str | None = None
    stream: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the job has reached its last state."""
        return self.status not in ("IN_QUEUE", "IN_PROGRESS")

    def describe(self, *, with_output: bool = True) -> dict[str, Any]:
        """Returns the answer of ``/status``, with times in milliseconds."""
        shown: dict[str, Any] = {"id": self.job_id, "status": self.status}
        if self.started_s is not None:
            shown["delayTime"] = _ms(self.started_s - self.created_s)
            shown["workerId"] = self.worker_id
            if self.finished_s is not None:
                shown["executionTime"] = _ms(self.finished_s - self.started_s)
        if self.retries:
            shown["retries"] = self.retries
        if self.output is not None and with_output:
            shown["output"] = read_kept(self.output)
        if self.error is not None:
            shown["error"] = self.error
        return shown


def limit_bytes(*, sync: bool) -> int:
    """Returns the size limit of a job's request and of its result.

    Args:
        sync: Whether the job came through ``/runsync``.
    """
    return RUNSYNC_LIMIT_BYTES if sync else RUN_LIMIT_BYTES


def new_job(body: object, *, sync: bool, now_s: float) -> Job:
    """Creates the queued job of a request.

    Args:
        body: The request body of ``/run`` or ``/runsync``, parsed.
        sync: Whether it came through ``/runsync``; its id then begins with ``sync-``.
        now_s: The time of its creation, in seconds.

    Raises:
        BadRequest: The body is not an object, has no ``input``, or has an invalid ``policy``.
    """
    if not isinstance(body, dict):
        raise BadRequest('the request body must be a JSON object with an "input"')
    if body.get("input") is None:
        raise BadRequest('the request body has no "input"; send {"input": {...}}')
    webhook = body.get("webhook")
    if webhook and not (isinstance(webhook, str) and webhook.startswith(("http://", "https://"))):
        raise BadRequest('"webhook" must be a URL that begins with http:// or https://')
    policy = body.get("policy")
    return Job(
        job_id=f"{'sync-' if sync else ''}{uuid4()}-u1",
        request={key: body[key] for key in _HANDED_TO_WORKER if key in body},
        created_s=now_s,
        execution_timeout_s=_policy_ms(policy, "executionTimeout", EXECUTION_TIMEOUT_MS) / 1000,
        ttl_s=_policy_ms(policy, "ttl", TTL_MS) / 1000,
        keep_s=KEEP_RUNSYNC_S if sync else KEEP_RUN_S,
        webhook=webhook or None,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _policy_ms(policy: object, key: str, default_ms: int) -> float:
    if policy is None:
        return default_ms
    if not isinstance(policy, dict):
        raise BadRequest('"policy" must be an object such as {"executionTimeout": 600000}')
    value = policy.get(key, default_ms)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise BadRequest(f'"policy.{key}" must be a number of milliseconds above 0')
    return value
