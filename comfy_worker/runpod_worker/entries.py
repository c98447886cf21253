"""Sorts what RunPod hands out: jobs, entries that get an error, and entries that are dropped.

RunPod forwards what clients send, and a batch carries several clients' jobs. An odd entry must not
end the worker, nor lose the job beside it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.errors import InvalidInput

__all__ = ["Batch", "Entry", "ids_in", "parse", "read_batch"]

log = logging.getLogger(__name__)

Entry = dict[str, Any]

# What can stand in a URL's path, a header and the heartbeat's list of ids as it is.
USABLE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+=~-]{0,199}")
# A string, a bracket or a colon of JSON; anything between them is skipped. A string without an end
# matches up to the end of the text: otherwise each quote in it would be tried as a beginning, which
# takes quadratic time.
TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[\]{}:]', re.DOTALL)
# Deeper JSON is refused: Python's limit of about 1,000 calls is reached soon behind it.
MAX_DEPTH = 200


@dataclass
class Batch:
    """One answer of RunPod to a request for jobs.

    Attributes:
        jobs: entries that can be run.
        refused: errors by job id, for entries that have an id but cannot be run.
    """

    jobs: list[Entry] = field(default_factory=list)
    refused: dict[str, InvalidInput] = field(default_factory=dict)


def read_batch(entries: object, in_progress: Container[str]) -> Batch:
    """Sort what RunPod handed out; never raises.

    Args:
        entries: the JSON that RunPod sent, one job or a list of jobs.
        in_progress: ids of the jobs that this worker has already.
    """
    batch = Batch()
    rows: list[Any] = entries if isinstance(entries, list) else [entries]
    for entry in rows:
        job_id = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(job_id, str) or not USABLE_ID.fullmatch(job_id):
            _drop("it has no usable id")
        elif job_id in in_progress or any(job["id"] == job_id for job in batch.jobs):
            _drop(f"job {job_id} is here already")
        elif (problem := _problem(entry)) is not None:
            batch.refused[job_id] = problem
        else:
            batch.jobs.append(entry)
    return batch


def parse(body: bytes) -> object:
    """Parse JSON as RunPod sends it.

    Raises:
        ValueError: it cannot be read, for whatever reason.
    """
    try:
        value: object = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def ids_in(body: bytes) -> list[str]:
    """Find the ids of jobs in a text that cannot be parsed, so that their clients get an answer.

    Args:
        body: what RunPod sent. Only the ids of entries count: a client could write other jobs'
            ids into its input.
    """
    found: dict[str, None] = {}
    opened, depth = b"", 0  # the first three brackets that are open, and how many are
    before: list[bytes] = [b"", b""]
    for match in TOKEN.finditer(body):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            opened += token if depth <= 3 else b""
        elif token in (b"}", b"]"):
            depth -= 1
            opened = opened[: max(depth, 0)]
        elif before == [b'"id"', b":"] and opened in (b"{", b"[{"):
            job_id = token[1:-1].decode(errors="replace")
            if USABLE_ID.fullmatch(job_id):
                found[job_id] = None
        before = [before[1], token]
    return list(found)


def _problem(entry: Entry) -> InvalidInput | None:
    """Why an entry with an id is not a job that can be run."""
    if entry.get("input") is None:
        return InvalidInput(
            'the job has no input; send {"input": {...}}', [{"key": "input", "problem": "missing"}]
        )
    if _is_deeper(entry, MAX_DEPTH):
        return InvalidInput(
            f"the input is nested more than {MAX_DEPTH} deep; send it flatter",
            [{"key": "input", "maximum": MAX_DEPTH}],
        )
    return None


def _is_deeper(value: object, limit: int) -> bool:
    """Whether a value is nested deeper than a limit; goes level by level, without recursion."""
    level = [value]
    for _ in range(limit + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        if not below:
            return False
        level = below
    return True


def _drop(reason: str) -> None:
    log.warning("dropped an entry of RunPod's: %s", reason, extra={"action": "job.dropped"})
