"""Queues one workflow and watches it to its end.

Owns what counts as the end and where the outputs are read: from ``executed`` while the socket has been whole, from
``/history`` otherwise, so that nothing that ComfyUI has is lost when the socket breaks. Knows nothing of jobs.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.events import (
    Disconnected,
    Event,
    EventStream,
    Executed,
    Executing,
    Failed,
    Finished,
    Interrupted,
    failed,
)
from comfy_worker.errors import (
    ComfyUIUnavailable,
    ExecutionFailed,
    JobCancelled,
    OutOfMemory,
    WorkerError,
)
from comfy_worker.logs import bound

__all__ = ["Execution", "ExecutionResult"]

log = logging.getLogger(__name__)

TICK_S = 0.1
HISTORY_POLL_S = 1.0
SILENCE_S = 10.0
SILENT_LIMIT_S = 30.0
ABANDON_S = 10.0


@dataclass
class ExecutionResult:
    """What a prompt left behind.

    Attributes:
        outputs: by node id, what each output node reported: ``{"images": [{filename, subfolder, type}], ...}``.
        node_ms: by node id, how long each node ran; cached nodes are left out.
    """

    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    node_ms: dict[str, int] = field(default_factory=dict)


class Execution:
    """One prompt, from the queue to its end.

    Args:
        client: the routes of the ComfyUI that runs it.
        events: its websocket.
        alive: whether that ComfyUI's process still runs.
    """

    def __init__(self, client: ComfyUIClient, events: EventStream, alive: Callable[[], bool]) -> None:
        self._client = client
        self._events = events
        self._alive = alive
        self._silent_since: float | None = None
        self.prompt_id = str(uuid.uuid4())

    def run(
        self,
        workflow: dict[str, Any],
        cancelled: threading.Event,
        *,
        on_event: Callable[[Event | None], None] = lambda _event: None,
        extra_data: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        """Queue a workflow, wait for its end, and forget it.

        Args:
            workflow: a graph in API format, filled and checked.
            cancelled: set by another thread to interrupt it.
            on_event: gets each event of the prompt, and None when there has been none for a tenth of a second.
            extra_data: what goes with the prompt beside its graph, such as ``preview_method``.

        Raises:
            WorkflowRefused: ComfyUI's validation found errors; nothing ran.
            ExecutionFailed: a node raised.
            OutOfMemory: a node ran out of GPU memory.
            JobCancelled: ``cancelled`` was set, or somebody interrupted it.
            ComfyUIUnavailable: ComfyUI died or lost the prompt.
        """
        with bound(prompt_id=self.prompt_id), self._events.subscribed(self.prompt_id) as inbox:
            client_id = self._events.client_id()
            is_over = False
            try:
                self._client.queue_prompt(
                    workflow, prompt_id=self.prompt_id, client_id=client_id, extra_data=extra_data
                )
                log.info("queued %d nodes", len(workflow), extra={"action": "prompt.queued"})
                result = self._watch(inbox, cancelled, on_event)
                is_over = True
                return result
            finally:
                if not is_over:
                    self._abandon()
                self._forget()

    def _watch(
        self,
        inbox: queue.SimpleQueue[Event],
        cancelled: threading.Event,
        on_event: Callable[[Event | None], None],
    ) -> ExecutionResult:
        result = ExecutionResult()
        error: WorkerError | None = None
        whole = True
        running: tuple[str, float] | None = None
        next_look = time.monotonic() + SILENCE_S
        while True:
            if cancelled.is_set():
                raise JobCancelled("the job was cancelled")
            try:
                event = inbox.get(timeout=TICK_S)
            except queue.Empty:
                event = None
            on_event(event)
            now = time.monotonic()
            if event is not None and whole:
                next_look = now + SILENCE_S
            if isinstance(event, (Executing, Finished)) and running is not None:
                node_id, since = running
                result.node_ms[node_id] = result.node_ms.get(node_id, 0) + round((now - since) * 1000)
            match event:
                case Executing(node_id=node_id):
                    running = (node_id, now)
                case Executed(node_id=node_id, output=output):
                    result.outputs[node_id] = dict(output)
                case Failed():
                    error = _error(event)
                case Interrupted():
                    error = _interrupted()
                case Disconnected():
                    whole, next_look = False, now
                case Finished() if whole:
                    if error is not None:
                        raise error
                    return result
            if not self._alive():
                raise ComfyUIUnavailable("ComfyUI died while the workflow ran; send the job again")
            if now >= next_look:
                next_look = now + HISTORY_POLL_S
                if self._is_over(result):
                    return result

    def _is_over(self, result: ExecutionResult) -> bool:
        """Ask ``/history`` whether the prompt ended, and if so take its outputs from there."""
        try:
            queued = self._client.is_queued(self.prompt_id)
            entry = self._client.get_history(self.prompt_id)
        except ComfyUIUnavailable:
            # If its process is dead the next tick says so; a silent one may answer yet.
            self._silent_since = self._silent_since or time.monotonic()
            if time.monotonic() - self._silent_since > SILENT_LIMIT_S:
                raise
            return False
        self._silent_since = None
        if entry is None:
            if not queued:
                raise ComfyUIUnavailable("ComfyUI lost the prompt; send the job again")
            return False
        for kind, data in (entry.get("status") or {}).get("messages") or ():
            if kind == "execution_error":
                raise _error(failed(self.prompt_id, data))
            if kind == "execution_interrupted":
                raise _interrupted()
        result.outputs = dict(entry.get("outputs") or {})
        return True

    def _abandon(self) -> None:
        """Take the prompt out of the queue and off the GPU, and wait until ComfyUI holds it no more."""
        deadline = time.monotonic() + ABANDON_S
        try:
            while self._alive() and self._client.is_queued(self.prompt_id) and time.monotonic() < deadline:
                self._client.delete_queue_item(self.prompt_id)
                self._client.interrupt(self.prompt_id)
                time.sleep(TICK_S)
        except ComfyUIUnavailable as error:
            log.warning("could not take the prompt out: %s", error, extra={"action": "prompt.abandon_failed"})

    def _forget(self) -> None:
        try:
            if self._alive():
                self._client.delete_history(self.prompt_id)
        except ComfyUIUnavailable as error:
            log.warning("could not delete the history: %s", error, extra={"action": "prompt.forget_failed"})


def _interrupted() -> JobCancelled:
    return JobCancelled("the prompt was interrupted before its end; send the job again")


def _error(event: Failed) -> ExecutionFailed | OutOfMemory:
    detail = {
        "node_id": event.node_id,
        "class_type": event.class_type,
        "exception_type": event.exception_type,
        "message": event.message,
    }
    log.warning("node failed: %s", "".join(event.traceback), extra={"action": "prompt.failed"})
    if event.exception_type.endswith("OutOfMemoryError"):
        return OutOfMemory(
            f"node {event.node_id} ({event.class_type}) ran out of GPU memory; ask for a smaller size, a smaller "
            "batch or an fp8 model",
            [detail],
        )
    return ExecutionFailed(
        f"node {event.node_id} ({event.class_type}) failed with {event.exception_type}: {event.message}", [detail]
    )
