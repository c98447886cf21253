"""The jobs that came through the API, with what the queue does not know of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from comfy_local.endpoint.job import KEEP_RUN_S, Job
from comfy_local.endpoint.jobs import Jobs
from comfy_local.endpoint.outputs import OutputStore, read_kept

from .assets import AssetStore
from .errors import ApiError, invalid_request, not_found
from .results import JobOutput, job_error, latest_update, result_of, store_outputs
from .workflow import AssetFiles, checked_workflow

__all__ = ["Submission", "Submissions"]

STATUS_NAMES = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "canceled",
    "TIMED_OUT": "failed",
}
MAX_LABELS = 16
MAX_LABEL = 256
MAX_KEY = 255


@dataclass(eq=False)
class Submission:
    """A job of the API.

    Attributes:
        job: The job in the queue.
        workflow: The workflow with the names of its files; a file if it is large.
        classes: The class of each node.
        labels: The client's `metadata`.
        outputs: What the job made; None until it was read from the result.
        warnings: What the worker said beside the outputs.
    """

    job: Job
    workflow: Any
    classes: dict[str, str]
    labels: dict[str, str]
    idempotency_key: str | None = None
    outputs: list[JobOutput] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The API's word for the job's state."""
        if self.job.status == "TIMED_OUT" and (self.job.error or "").startswith("ttl"):
            return "expired"
        return STATUS_NAMES[self.job.status]

    def progress(self) -> dict[str, Any] | None:
        """Returns the API's snapshot of the progress; None if the job does not run."""
        total = len(self.classes)
        if self.job.status == "COMPLETED":
            return {"value": 1.0, "nodes_done": total, "nodes_total": total}
        if self.job.status != "IN_PROGRESS":
            return None
        update = latest_update(self.job) or {}
        value = min(100, max(0, update.get("percent", 0))) / 100
        node_id = update.get("node_id")
        return {
            "value": value,
            # The worker reports one number for all nodes.
            "nodes_done": int(value * total),
            "nodes_total": total,
            "current_node": node_id,
            "current_node_class": self.classes.get(str(node_id)),
            "step": update.get("step"),
            "steps": update.get("steps"),
            "message": update.get("message"),
        }


class Submissions:
    """All jobs of the API that can still be asked for; belongs to one event loop.

    Args:
        jobs: The jobs of the endpoint.
        assets: The files of clients and jobs.
        store: Keeps large workflows.
        clock: The clock of `jobs`.
    """

    def __init__(
        self, jobs: Jobs, assets: AssetStore, store: OutputStore, clock: Callable[[], float]
    ) -> None:
        self._jobs = jobs
        self._assets = assets
        self._store = store
        self._epoch_s = time.time() - clock()
        # The oldest first.
        self._known: dict[str, Submission] = {}
        self._keys: set[str] = set()

    def submit(self, body: object, idempotency_key: str | None) -> Submission:
        """Queues a job.

        Args:
            body: The request, parsed.
            idempotency_key: The client's; each can be used once.

        Raises:
            ApiError: The request is refused.
            QueueFull: Too many jobs wait already.
        """
        if not isinstance(body, dict):
            raise invalid_request('the body must be a JSON object such as {"workflow": {...}}')
        workflow = checked_workflow(body.get("workflow"))
        labels = _labels(body.get("metadata"))
        secret = _partner_key(body.get("extra_data"))
        self._check_key(idempotency_key)
        files = AssetFiles(self._assets)
        workflow = files.named_in(workflow)
        job_input = {
            "workflow": workflow,
            "images": files.images(),
            "output": {"preview": True},
            "response": "images",
            **secret,
        }
        # As for /runsync, a result may have 20 MB. It is kept as long as that of /run.
        job = self._jobs.submit({"input": job_input}, sync=True)
        job.keep_s = KEEP_RUN_S
        classes = {node_id: node["class_type"] for node_id, node in workflow.items()}
        kept = self._store.keep(workflow)
        submission = Submission(job, kept, classes, labels, idempotency_key)
        self._known[job.job_id] = submission
        if idempotency_key is not None:
            self._keys.add(idempotency_key)
        return submission

    def get(self, job_id: str) -> Submission:
        """Returns a job.

        Raises:
            ApiError: There is no such job.
        """
        self.forget_old()
        if job_id not in self._known:
            raise not_found(f"there is no job {job_id[:100]}; jobs are removed after a while")
        return self._known[job_id]

    def page(
        self, labels: dict[str, str], limit: int, cursor: str | None
    ) -> tuple[list[Submission], str | None]:
        """Returns a page of the jobs with these labels, the newest first.

        Returns:
            The jobs, and the cursor of the next page; None on the last one.

        Raises:
            ApiError: There is no such cursor.
        """
        self.forget_old()
        row = [
            submission
            for submission in reversed(self._known.values())
            if labels.items() <= submission.labels.items()
        ]
        if cursor is not None:
            ids = [submission.job.job_id for submission in row]
            if cursor not in ids:
                raise ApiError(400, "invalid_cursor", "the cursor is unknown; begin again")
            row = row[ids.index(cursor) + 1 :]
        page = row[:limit]
        is_last = len(row) <= limit
        return page, None if is_last else page[-1].job.job_id

    def outputs(self, submission: Submission) -> list[JobOutput]:
        """Returns what a job made; its files become assets at the first call."""
        if submission.job.status != "COMPLETED":
            return []
        if submission.outputs is None:
            job = submission.job
            result = result_of(job)
            submission.outputs, problems = store_outputs(result, job.job_id, self._assets)
            warnings = result.get("warnings")
            submission.warnings = [*(warnings if isinstance(warnings, list) else []), *problems]
        return submission.outputs

    def workflow(self, submission: Submission) -> Any:
        """Returns the workflow that a job runs."""
        return read_kept(submission.workflow)

    def forget_old(self) -> None:
        """Removes the jobs that the queue does not know any more, with their outputs."""
        gone = [job_id for job_id in self._known if not self._jobs.knows(job_id)]
        for job_id in gone:
            submission = self._known.pop(job_id)
            self._store.drop(submission.workflow)
            if submission.idempotency_key is not None:
                self._keys.discard(submission.idempotency_key)
            for output in submission.outputs or []:
                with suppress(ApiError):  # its client has removed it
                    self._assets.remove(output.asset.asset_id)

    def queue_position(self, submission: Submission) -> int | None:
        """Returns the number of a waiting job, from 1; None if it does not wait."""
        return self._jobs.queue_position(submission.job)

    def time_of(self, seconds: float | None) -> datetime | None:
        """Returns the time of a reading of the jobs' clock."""
        if seconds is None:
            return None
        return datetime.fromtimestamp(self._epoch_s + seconds, timezone.utc)

    def expires_at(self, submission: Submission) -> datetime | None:
        """Returns when a job is removed at the latest."""
        job = submission.job
        end_s = job.created_s + job.ttl_s if job.finished_s is None else job.finished_s
        return self.time_of(end_s + job.keep_s)

    def error(self, submission: Submission) -> dict[str, Any] | None:
        """Returns the API's error of a job; None if it has not failed."""
        return job_error(submission.job, submission.classes)

    def _check_key(self, key: str | None) -> None:
        if key is None:
            return
        if not 0 < len(key) <= MAX_KEY:
            raise invalid_request(f"Idempotency-Key must have 1 to {MAX_KEY} characters")
        if key in self._keys:
            raise ApiError(
                422,
                "idempotency_key_reuse",
                "this Idempotency-Key was used for another job; list the jobs to find it",
            )


def _labels(value: object) -> dict[str, str]:
    labels = {} if value is None else value
    if not isinstance(labels, dict):
        raise ApiError(422, "metadata_invalid", "`metadata` must be an object of texts")
    if len(labels) > MAX_LABELS:
        problem = f"`metadata` has {len(labels)} labels; at most {MAX_LABELS} are allowed"
        raise ApiError(422, "metadata_invalid", problem)
    for key, label in labels.items():
        if not isinstance(label, str) or len(label) > MAX_LABEL or len(key) > MAX_LABEL:
            problem = f"`metadata.{key[:100]}` must be text of at most {MAX_LABEL} characters"
            raise ApiError(422, "metadata_invalid", problem)
    return labels


def _partner_key(extra_data: object) -> dict[str, str]:
    """Returns the key for API nodes as the worker takes it."""
    if extra_data is None:
        return {}
    key = extra_data.get("api_key_comfy_org") if isinstance(extra_data, dict) else None
    if not isinstance(extra_data, dict) or set(extra_data) - {"api_key_comfy_org"}:
        raise invalid_request("`extra_data` may have the key `api_key_comfy_org` only")
    if key is not None and not isinstance(key, str):
        raise invalid_request("`extra_data.api_key_comfy_org` must be text")
    return {"comfy_org_api_key": key} if key else {}
