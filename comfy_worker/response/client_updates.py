"""Sends a job's updates to its client before the result is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_worker.comfyui.events import Event, Executed
from comfy_worker.job import Job
from comfy_worker.outgoing import posted_size
from comfy_worker.response.deliver import Delivery
from comfy_worker.response.results import ResultBuilder

__all__ = ["ClientUpdates"]


class ClientUpdates:
    """The updates of one job.

    Args:
        job: the job.
        delivery: counts what a stream already holds, since RunPod's limit covers all of a stream.
        send: sends one update.
    """

    def __init__(
        self, job: Job, delivery: Delivery, send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._job = job
        self._delivery = delivery
        self._send = send

    def send_progress(self, update: dict[str, Any]) -> None:
        """Send how far the job is, unless the client does not want to know."""
        if self._job.input.output.progress:
            self._send_counted(update)

    def send_outputs(self, event: Event | None, results: ResultBuilder) -> None:
        """Send what a node saved, if the job is a stream and a node has just ended."""
        if not self._job.is_stream or not isinstance(event, Executed):
            return
        outputs = results.streamed(event)
        if outputs is not None:
            self._send_counted(outputs)

    def _send_counted(self, update: dict[str, Any]) -> None:
        if self._job.is_stream:
            self._delivery.streamed += posted_size(update)
        self._send(update)
