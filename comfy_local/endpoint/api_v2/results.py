"""Reads what a worker says of a job: its progress, its result and its error."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from comfy_local.endpoint.job import Job
from comfy_local.endpoint.outputs import read_kept

from .assets import Asset, AssetInfo, AssetStore
from .errors import ApiError

__all__ = ["JobOutput", "job_error", "latest_update", "result_of", "store_outputs"]

# The keys of a result -> the API's types of output.
OUTPUT_TYPES = {
    "images": "image",
    "videos": "video",
    "audio": "audio",
    "files": "file",
    "texts": "text",
}
# The worker's codes for which the API has words of its own; the others stay, in lower case.
ERROR_CODES = {
    "EXECUTION_FAILED": "node_execution_error",
    "INVALID_VALUE": "invalid_workflow",
    "INVALID_WORKFLOW": "invalid_workflow",
    "MODEL_NOT_FOUND": "invalid_workflow",
    "NODE_NOT_INSTALLED": "invalid_workflow",
    "WORKFLOW_REFUSED": "invalid_workflow",
}
CODED = re.compile(r"([A-Z][A-Z_]+): ")


@dataclass(frozen=True)
class JobOutput:
    """A file or a text that a job made."""

    node_id: str
    type: str
    asset: Asset


def latest_update(job: Job) -> dict[str, Any] | None:
    """Returns the last progress that the worker has reported; None unless the job runs."""
    if job.status != "IN_PROGRESS":
        return None
    streamed = (chunk.get("output") for chunk in reversed(job.stream))
    for update in (*streamed, job.output):
        if isinstance(update, dict) and "percent" in update:
            return update
    return None


def result_of(job: Job) -> dict[str, Any]:
    """Returns the result of a job that has ended; empty if there is none."""
    output = read_kept(job.output)
    if isinstance(output, list):
        output = output[-1] if output else None  # the last value of a stream is the result
    return output if isinstance(output, dict) else {}


def store_outputs(
    result: dict[str, Any], job_id: str, assets: AssetStore
) -> tuple[list[JobOutput], list[str]]:
    """Makes assets of the files in a result.

    Returns:
        The outputs, and a sentence for each file that could not be stored.
    """
    outputs, problems = [], []
    for entry, output_type in _entries(result):
        name = str(entry.get("filename") or f"{entry.get('node_id')}.txt")
        info = AssetInfo(name, str(entry.get("mime_type", "application/octet-stream")), job_id)
        try:
            asset = _stored(entry, info, assets)
        except (ApiError, binascii.Error) as error:
            problems.append(f"{name} is not among the outputs: {error}")
            continue
        if name.endswith(".latent"):
            output_type = "latent"
        outputs.append(JobOutput(str(entry.get("node_id", "")), output_type, asset))
    return outputs, problems


def _entries(result: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, output_type in OUTPUT_TYPES.items():
        entries = result.get(key)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("data"), str):
                yield entry, output_type


def _stored(entry: dict[str, Any], info: AssetInfo, assets: AssetStore) -> Asset:
    data = entry["data"]
    if entry.get("type") == "s3_url":
        return assets.add_link(data, int(entry.get("bytes", 0)), info)
    content = data.encode() if entry.get("type") == "text" else base64.b64decode(data)
    return assets.add(assets.write(io.BytesIO(content)), info)


def job_error(job: Job, classes: dict[str, str]) -> dict[str, Any] | None:
    """Returns the API's error of a job that has failed; None for another job.

    Args:
        job: The job.
        classes: The class of each node of its workflow.
    """
    if job.status not in ("FAILED", "TIMED_OUT"):
        return None
    text = job.error or "the job failed"
    result = result_of(job)
    coded = CODED.match(text)
    code = str(result.get("code") or (coded[1] if coded else job.status))
    details = result.get("details")
    first = details[0] if isinstance(details, list) and details else {}
    first = first if isinstance(first, dict) else {}
    node_id = first.get("node_id")
    class_type = first.get("class_type") or classes.get(str(node_id))
    return {
        "code": ERROR_CODES.get(code, code.lower()),
        "message": text,
        "node_id": None if node_id is None else str(node_id),
        "class_type": class_type,
        "traceback": None,
    }
