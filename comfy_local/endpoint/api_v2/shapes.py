"""Writes jobs, outputs and assets as the JSON objects of the API."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from .assets import Asset
from .results import JobOutput
from .submissions import Submission, Submissions

__all__ = ["AssetShapes", "JobShapes"]

# The URLs of files are valid as long as the files; clients want to read a time.
URL_LIFE = timedelta(hours=1)


class AssetShapes:
    """Writes assets for the client of one request.

    Args:
        root: The URL under which the client reaches the API, such as
            ``http://127.0.0.1:8000/api/v2``.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def output(self, output: JobOutput) -> dict[str, Any]:
        """Returns an output of a job."""
        asset = self.asset(output.asset)
        return {
            "node_id": output.node_id,
            "name": asset.pop("file_path"),
            "type": output.type,
            **asset,
        }

    def asset(self, asset: Asset, *, created_new: bool | None = None) -> dict[str, Any]:
        """Returns an asset.

        Args:
            asset: The asset.
            created_new: Whether a request has stored a new content; None if it has not tried.
        """
        shown: dict[str, Any] = {
            "id": asset.asset_id,
            "hash": asset.hash,
            "size_bytes": asset.size_bytes,
            "content_type": asset.info.content_type,
            "file_path": asset.info.file_path,
            "created_at": _text(asset.created_at),
            "url": f"{self._root}/assets/{asset.asset_id}/content",
            "url_expires_at": _text(datetime.now(timezone.utc) + URL_LIFE),
        }
        if created_new is not None:
            shown["created_new"] = created_new
        if asset.info.job_id is not None:
            shown["job_id"] = asset.info.job_id
        return shown


class JobShapes(AssetShapes):
    """Writes jobs for the client of one request.

    Args:
        root: The URL under which the client reaches the API.
        path: The path of it.
        submissions: The jobs.
    """

    def __init__(self, root: str, path: str, submissions: Submissions) -> None:
        super().__init__(root)
        self._path = path
        self._submissions = submissions

    def job(self, submission: Submission) -> dict[str, Any]:
        """Returns a whole job."""
        job, times = submission.job, self._submissions
        outputs = times.outputs(submission)
        path = f"{self._path}/jobs/{job.job_id}"
        return {
            "id": job.job_id,
            "status": submission.status,
            "created_at": _text(times.time_of(job.created_s)),
            "started_at": _text(times.time_of(job.started_s)),
            "completed_at": _text(times.time_of(job.finished_s)),
            "expires_at": _text(times.expires_at(submission)),
            "queue_position": times.queue_position(submission),
            "progress": submission.progress(),
            "outputs": [self.output(output) for output in outputs],
            "error": times.error(submission),
            "metrics": _metrics(submission),
            "metadata": submission.labels,
            "urls": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel"},
        }

    def listed(self, submission: Submission) -> dict[str, Any]:
        """Returns a job as an entry of a list."""
        job, times = submission.job, self._submissions
        changed_s = job.finished_s or job.started_s or job.created_s
        return {
            "id": job.job_id,
            "status": submission.status,
            "create_time": _text(times.time_of(job.created_s)),
            "update_time": _text(times.time_of(changed_s)),
            "metadata": submission.labels,
        }


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _metrics(submission: Submission) -> dict[str, int | None]:
    job = submission.job
    queue_ms = execution_ms = None
    if job.started_s is not None:
        queue_ms = round((job.started_s - job.created_s) * 1000)
        if job.finished_s is not None:
            execution_ms = round((job.finished_s - job.started_s) * 1000)
    return {"queue_ms": queue_ms, "execution_ms": execution_ms}
