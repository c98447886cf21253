"""Follows a job as server-sent events: status, progress, preview, output and log."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from comfy_local.endpoint.changes import Changes

from .results import latest_update
from .shapes import JobShapes
from .submissions import Submission, Submissions

__all__ = ["follow"]

# Comfy's client takes a stream for dead after 45 s without a word.
KEEPALIVE_S = 15.0
KEEPALIVE = b": keepalive\n\n"
UNFINISHED = ("queued", "running")
PREVIEW = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)


async def follow(
    submission: Submission, submissions: Submissions, shapes: JobShapes, changes: Changes
) -> AsyncIterator[bytes]:
    """Yields a job's events, first its present state, until it has ended."""
    seen: tuple[Any, ...] | None = None
    while not submission.job.finished:

        def look(seen: tuple[Any, ...] | None = seen) -> tuple[Any, ...] | None:
            state = _state(submission, submissions)
            return None if state == seen else state

        state = await changes.wait_for(look, KEEPALIVE_S)
        if state is None:
            yield KEEPALIVE
            continue
        if state[0] not in UNFINISHED:
            break
        for event in _changes(submission, seen, state):
            yield event
        seen = state
    for event in _last_events(submission, submissions, shapes):
        yield event


def _state(submission: Submission, submissions: Submissions) -> tuple[Any, ...]:
    position = submissions.queue_position(submission)
    return submission.status, position, latest_update(submission.job)


def _changes(
    submission: Submission, seen: tuple[Any, ...] | None, state: tuple[Any, ...]
) -> Iterator[bytes]:
    status, position, update = state
    if seen is None or seen[:2] != state[:2]:
        yield _event("status", {"status": status, "queue_position": position})
    progress = submission.progress()
    if progress is not None:
        yield _event("progress", progress)
    preview = PREVIEW.match((update or {}).get("preview", ""))
    if preview is not None:
        shown = {
            "node_id": str(update.get("node_id", "")),
            "content_type": preview[1],
            "data_base64": preview[2],
        }
        yield _event("preview", shown)


def _last_events(
    submission: Submission, submissions: Submissions, shapes: JobShapes
) -> Iterator[bytes]:
    """Yields the outputs before the last status: with that status, clients stop to read."""
    progress = submission.progress()
    if progress is not None:
        yield _event("progress", progress)
    for output in submissions.outputs(submission):
        yield _event("output", shapes.output(output))
    for warning in submission.warnings:
        yield _event("log", {"level": "warning", "message": warning})
    error = submissions.error(submission)
    if error is not None:
        yield _event("log", {"level": "error", "message": error["message"]})
    yield _event("status", {"status": submission.status, "queue_position": None})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
