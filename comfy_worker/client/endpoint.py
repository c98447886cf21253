"""A RunPod endpoint, or the local one: starts jobs and follows them to their end."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_worker.client.errors import (
    BadTarget,
    ClientError,
    JobUnknown,
    RequestRejected,
    Stopped,
    WaitTimeout,
)
from comfy_worker.client.transport import Transport

__all__ = ["LOCAL_URL", "Endpoint", "Job", "JobStatus", "Progress", "endpoint_url"]

LOCAL_URL = "http://127.0.0.1:8000/v2/local"
RUNPOD_URL = "https://api.runpod.ai/v2"
ENDPOINT_ID = re.compile(r"[\w-]+", re.ASCII)
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
REQUEST_LIMIT_BYTES = 10_000_000
FIRST_POLL_S = 0.25
LONGEST_POLL_S = 5.0
# While progress moves, a person watches the bar.
MOVING_POLL_S = 1.0
POLL_GROWTH = 1.5
# An endpoint may show a new job a moment after it has accepted it.
UNSEEN_S = 10.0
CANCEL_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Progress:
    """How far a running job is.

    Attributes:
        percent: 0..100.
        message: what the worker does now.
        step: the sampler's step; None if the node that runs does not count steps.
        steps: the number of steps.
        node: the title of the node that runs; empty before the first.
        eta_s: about how many seconds are left; None if the worker cannot tell.
    """

    percent: float
    message: str = ""
    step: int | None = None
    steps: int | None = None
    node: str = ""
    eta_s: float | None = None


@dataclass(frozen=True)
class JobStatus:
    """What the endpoint says about a job.

    Attributes:
        job_id: the job's id.
        state: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED or TIMED_OUT.
        progress: while the job runs, if the worker reports it.
        output: the result of a job that has ended; None if there is none.
        error: why the job failed, "CODE: sentence" for this worker; empty if it did not.
    """

    job_id: str
    state: str
    progress: Progress | None = None
    output: Any = None
    error: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job will not change any more."""
        return self.state in ENDED

    @property
    def is_completed(self) -> bool:
        """Whether the job ended well."""
        return self.state == "COMPLETED"

    @property
    def details(self) -> list[Any]:
        """The worker's details of an error; empty if there are none."""
        details = self.output.get("details") if isinstance(self.output, dict) else None
        return list(details) if isinstance(details, list) else []

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> JobStatus:
        """Read an answer of `/status`."""
        state = str(answer.get("status", ""))
        output = answer.get("output")
        job_id = str(answer.get("id", ""))
        if state in ENDED:
            return cls(job_id, state, None, _result(output), _error(answer.get("error")))
        return cls(job_id, state, _progress(output))


def endpoint_url(endpoint_id: str, environ: Mapping[str, str]) -> str:
    """Return the URL of an endpoint.

    Args:
        endpoint_id: RunPod's id of the endpoint; empty for the local one.
        environ: `RUNPOD_ENDPOINT_BASE_URL` replaces RunPod's address, as in RunPod's own SDK.
    """
    base = environ.get("RUNPOD_ENDPOINT_BASE_URL", "").strip().rstrip("/")
    if endpoint_id:
        return f"{base or RUNPOD_URL}/{endpoint_id}"
    return f"{base}/local" if base else LOCAL_URL


class Endpoint:
    """An endpoint. It may be shared by threads.

    Args:
        transport: sends the requests.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @classmethod
    def at(cls, url: str, api_key: str = "") -> Endpoint:
        """Return the endpoint with this URL, such as `https://api.runpod.ai/v2/ENDPOINT_ID`."""
        return cls(Transport(url, api_key))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], endpoint_id: str = "") -> Endpoint:
        """Return the endpoint that the environment describes.

        Args:
            environ: `RUNPOD_API_KEY`, `RUNPOD_ENDPOINT_BASE_URL`; `SERVE_API_KEY` for the local
                endpoint.
            endpoint_id: RunPod's id of the endpoint; empty for the local one.

        Raises:
            BadTarget: RunPod needs an API key and there is none, or the id has characters that
                no id has.
        """
        if endpoint_id and not ENDPOINT_ID.fullmatch(endpoint_id):
            raise BadTarget(
                f"{endpoint_id} is no id of an endpoint: an id has only letters, digits, - and _. "
                "For a URL, use `submit --url` or Endpoint.at()"
            )
        url = endpoint_url(endpoint_id, environ)
        api_key = environ.get("RUNPOD_API_KEY", "").strip()
        if url == LOCAL_URL:
            # RunPod's key is not for this machine's endpoint.
            api_key = environ.get("SERVE_API_KEY", "").strip()
        elif not api_key and url.startswith(RUNPOD_URL):
            raise BadTarget("RUNPOD_API_KEY is not set: RunPod's endpoints need an API key")
        return cls.at(url, api_key)

    def run(self, job_input: Mapping[str, Any], policy: Mapping[str, Any] | None = None) -> Job:
        """Start a job; returns at once.

        If the connection breaks after the request was sent, the request is sent again. The job may
        then run twice; this client follows the second one.

        Args:
            job_input: the job's input.
            policy: RunPod's `executionTimeout` and `ttl`, in milliseconds.

        Raises:
            ClientError: the endpoint did not accept the job.
        """
        body = {"input": dict(job_input), **({"policy": dict(policy)} if policy else {})}
        try:
            size = len(json.dumps(body, allow_nan=False))
        except (ValueError, TypeError) as error:
            raise RequestRejected(f"the input is not JSON: {error}", 400) from error
        if size > REQUEST_LIMIT_BYTES:
            raise RequestRejected(
                f"the request has {size / 1e6:.1f} MB, and endpoints accept at most 10 MB: send "
                "large pictures as URLs",
                413,
            )
        answer = self.transport.call("POST", "run", body)
        job_id = answer.get("id")
        if not isinstance(job_id, str) or not job_id:
            raise ClientError("the endpoint accepted the job, but gave it no id")
        return Job(self, job_id)

    def job(self, job_id: str) -> Job:
        """Return a job that was started before."""
        return Job(self, job_id, is_new=False)

    def health(self) -> dict[str, Any]:
        """Return the numbers of jobs and workers."""
        return self.transport.call("GET", "health")


class Job:
    """A job of an endpoint.

    Args:
        endpoint: the endpoint.
        job_id: the endpoint's id of the job.
        is_new: whether the job has just been started.
    """

    def __init__(self, endpoint: Endpoint, job_id: str, *, is_new: bool = True) -> None:
        self.endpoint = endpoint
        self.job_id = job_id
        unseen_s = UNSEEN_S if is_new else 0.0
        self._seen_by = time.monotonic() + unseen_s

    def status(self) -> JobStatus:
        """Ask the endpoint about the job.

        Raises:
            JobUnknown: the endpoint does not know it, or has forgotten its result.
            ClientError: the endpoint does not answer, or refuses.
        """
        while True:
            try:
                answer = self.endpoint.transport.call("GET", f"status/{self.job_id}")
            except JobUnknown:
                if time.monotonic() >= self._seen_by:
                    raise
                self._pause(MOVING_POLL_S)
                continue
            self._seen_by = 0.0
            return JobStatus.read(answer)

    def updates(self) -> Iterator[JobStatus]:
        """Ask until the job has ended, less often while nothing changes.

        Yields:
            Each new status. The last one has ended.

        Raises:
            JobUnknown: the endpoint does not know the job.
            Stopped: the transport's stop event is set.
            ClientError: the endpoint does not answer, or refuses.
        """
        pause_s = FIRST_POLL_S
        last: JobStatus | None = None
        while True:
            status = self.status()
            if status != last:
                yield status
            if status.has_ended:
                return
            has_moved = last is not None and status != last
            pause_s = min(pause_s, MOVING_POLL_S) if has_moved else pause_s
            last = status
            self._pause(pause_s)
            pause_s = min(pause_s * POLL_GROWTH, LONGEST_POLL_S)

    def wait(
        self,
        on_update: Callable[[JobStatus], None] = lambda _status: None,
        timeout_s: float | None = None,
    ) -> JobStatus:
        """Wait until the job has ended.

        Args:
            on_update: gets each new status.
            timeout_s: how long to wait; None for ever. The job goes on afterwards.

        Raises:
            WaitTimeout: the time is over.
            ClientError: as :meth:`updates`.
        """
        began = time.monotonic()
        for status in self._timed(began, timeout_s):
            on_update(status)
            if status.has_ended:
                return status
        raise ClientError(f"job {self.job_id} has no end")

    def _timed(self, began: float, timeout_s: float | None) -> Iterator[JobStatus]:
        if timeout_s is None:
            yield from self.updates()
            return
        while True:
            status = self.status()
            yield status
            left_s = began + timeout_s - time.monotonic()
            if left_s <= 0 and not status.has_ended:
                raise WaitTimeout(f"job {self.job_id} is {status.state} after {timeout_s:g} s")
            self._pause(min(MOVING_POLL_S, max(left_s, 0.0)))

    def cancel(self) -> None:
        """Cancel the job. Works also after the transport's stop event was set.

        Raises:
            ClientError: the endpoint does not answer, or refuses.
        """
        never = threading.Event()
        route = f"cancel/{self.job_id}"
        transport = self.endpoint.transport
        transport.call("POST", route, {}, patience_s=CANCEL_PATIENCE_S, stop=never)

    def _pause(self, seconds: float) -> None:
        if self.endpoint.transport.stop.wait(seconds):
            raise Stopped("stopped")


def _progress(output: Any) -> Progress | None:
    """Read the progress that a running job shows; a stream shows a list of values."""
    values = output if isinstance(output, list) else [output]
    for value in reversed(values):
        if isinstance(value, dict) and _is_number(value.get("percent")):
            return Progress(
                float(value["percent"]),
                str(value.get("message", "")),
                _whole(value.get("step")),
                _whole(value.get("steps")),
                str(value.get("node", "")),
                float(value["eta_s"]) if _is_number(value.get("eta_s")) else None,
            )
    return None


def _error(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if value else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _result(output: Any) -> Any:
    """The result in a job's output. A worker that streams lists all values, the result last."""
    if not isinstance(output, list):
        return output
    for value in reversed(output):
        if isinstance(value, dict) and "timings" in value and "images" in value:
            return value
    return output
