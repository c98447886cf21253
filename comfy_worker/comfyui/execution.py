"""Queues one workflow and watches it to its end.

Owns what counts as the end and where the outputs are read: from ``executed`` while the socket has been whole, from
``/history`` otherwise, so that nothing that ComfyUI has is lost when the socket breaks. Knows nothing of jobs.
"""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.comfyui.cause import node_error
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
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import ComfyUIUnavailable, JobCancelled, OutOfMemory, WorkerError
from comfy_worker.logs import bound, secrets_in_context

__all__ = ["Execution", "ExecutionResult", "Limits"]

log = logging.getLogger(__name__)

HISTORY_POLL_S = 1.0
SILENCE_S = 10.0
LOST_AFTER_S = 5.0
FORGET_TRIES = 5


@dataclass(frozen=True)
class Limits:
    """How long to be patient with a ComfyUI, in seconds.

    Attributes:
        silence_s: HTTP unanswered, then it is taken for dead.
        stall_s: a running prompt without a sign of life, then it is ended.
        interrupt_s: a prompt still running after an interrupt, then ComfyUI is ended.
    """

    silence_s: float = 30.0
    stall_s: float = 300.0
    interrupt_s: float = 5.0


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
        process: that ComfyUI itself.
        limits: how long to be patient with it.
    """

    def __init__(
        self, client: ComfyUIClient, events: EventStream, process: ComfyUIProcess, limits: Limits
    ) -> None:
        self._client = client
        self._events = events
        self._process = process
        self._limits = limits
        self._result = ExecutionResult()
        self._whole = True
        self._started = False
        self._is_next = False
        self._running: tuple[str, float] | None = None
        self._seen_at = 0.0
        self._lost_at: float | None = None
        self.prompt_id = str(uuid.uuid4())

    def run(
        self,
        workflow: dict[str, Any],
        stop: Stop,
        *,
        on_event: Callable[[Event | None], None] = lambda _event: None,
        extra_data: Mapping[str, Any] | None = None,
    ) -> ExecutionResult:
        """Queue a workflow, wait for its end, and forget it.

        Args:
            workflow: a graph in API format, filled and checked.
            stop: when to end it early.
            on_event: gets each event of the prompt, and None when there has been none for a tenth of a second.
            extra_data: what goes with the prompt beside its graph, such as ``preview_method``.

        Raises:
            WorkflowRefused: ComfyUI's validation found errors; nothing ran.
            ExecutionFailed: a node raised.
            OutOfMemory: a node ran out of memory, or ComfyUI was killed for want of the machine's.
            DiskFull: a node found no room on the disk.
            GpuFault: a node met an error after which the GPU works no more for this ComfyUI.
            JobCancelled, JobTimedOut: ``stop`` was due, or somebody interrupted the prompt.
            ComfyUIUnavailable: ComfyUI died, lost the prompt, or shows no sign of life.
        """
        self._process.redact_prompt(self.prompt_id, secrets_in_context())
        with bound(prompt_id=self.prompt_id), self._events.subscribed(self.prompt_id) as inbox:
            client_id = self._events.client_id()
            is_over = False
            try:
                try:
                    self._client.queue_prompt(
                        workflow, prompt_id=self.prompt_id, client_id=client_id, extra_data=extra_data
                    )
                except ComfyUIUnavailable:
                    if not self._is_known():  # only the answer may have been lost
                        raise
                log.info("queued %d nodes", len(workflow), extra={"action": "prompt.queued"})
                self._watch(inbox, stop, on_event)
                is_over = True
                return self._result
            except ComfyUIUnavailable as error:
                told = (self._failure() if self._abandon() else None) or error  # one that died says why by now
                is_over = True
                if isinstance(told, ComfyUIUnavailable):
                    told.try_again = not self._may_have_started()
                raise told from error
            finally:
                if not is_over:
                    self._abandon()
                self._forget()

    @property
    def ran_away(self) -> bool:
        """Whether ComfyUI had to be ended while this prompt ran, since it could not be interrupted."""
        return self._process.was_condemned and self._may_have_started()

    @property
    def running_node(self) -> str | None:
        """The node that ran last; None where ComfyUI could not tell of it any more."""
        return None if self._running is None else self._running[0]

    def _watch(
        self, inbox: queue.SimpleQueue[Event], stop: Stop, on_event: Callable[[Event | None], None]
    ) -> None:
        """Return when the prompt has ended well."""
        error: WorkerError | None = None
        self._seen_at = time.monotonic()
        patience_s = min(SILENCE_S, self._limits.stall_s / 2)
        next_look = self._seen_at + patience_s
        while True:
            stop.check()
            try:
                event = inbox.get(timeout=TICK_S)
            except queue.Empty:
                event = None
            on_event(event)
            now = time.monotonic()
            if event is not None:
                self._seen_at = now
                if self._whole:
                    next_look = now + patience_s
            self._note(event, now)
            match event:
                case Failed():
                    error = node_error(event)
                case Interrupted():
                    error = _interrupted()
                case Disconnected():
                    self._whole, next_look = False, now
                case Finished() if self._whole:
                    if error is not None:
                        raise error
                    return
            if (failure := self._failure()) is not None:
                raise failure
            if now >= next_look:
                next_look = now + HISTORY_POLL_S
                if self._is_over():
                    if self._whole and inbox.empty():
                        log.warning("the websocket is deaf", extra={"action": "comfyui.socket_deaf"})
                        self._events.break_connection()
                    return
                self._check_stall()

    def _note(self, event: Event | None, now: float) -> None:
        """Keep what an event says of the nodes."""
        if isinstance(event, (Executing, Finished)) and self._running is not None:
            node_id, since = self._running
            self._result.node_ms[node_id] = self._result.node_ms.get(node_id, 0) + round((now - since) * 1000)
        match event:
            case Executing(node_id=node_id):
                self._running, self._started = (node_id, now), True
            case Executed(node_id=node_id, output=output):
                self._result.outputs[node_id] = dict(output)

    def _is_known(self) -> bool:
        try:
            return self._client.is_queued(self.prompt_id) or self._client.get_history(self.prompt_id) is not None
        except ComfyUIUnavailable:
            return False

    def _is_over(self) -> bool:
        """Ask ``/history`` whether the prompt ended, and if so take its outputs from there."""
        try:
            queued = self._client.get_queue()
            entry = self._client.get_history(self.prompt_id)
        except ComfyUIUnavailable as error:
            # Whether it is dead others find out; a silent one may answer yet.
            log.warning("could not look for the prompt: %s", error, extra={"action": "prompt.look_failed"})
            return False
        now = time.monotonic()
        waits = any(item[1] == self.prompt_id for item in queued["queue_pending"])
        runs = any(item[1] == self.prompt_id for item in queued["queue_running"])
        self._is_next = waits and not queued["queue_running"]
        if waits and not self._is_next:
            self._seen_at = now  # its turn has not come
        self._started = self._started or not waits
        if entry is None:
            if waits or runs:
                self._lost_at = None
            elif now - (self._lost_at or now) > LOST_AFTER_S:
                raise ComfyUIUnavailable("ComfyUI lost the prompt; send the job again")
            else:
                self._lost_at = self._lost_at or now
            return False
        for kind, data in (entry.get("status") or {}).get("messages") or ():
            if kind == "execution_error":
                raise node_error(failed(self.prompt_id, data))
            if kind == "execution_interrupted":
                raise _interrupted()
        self._result.outputs = dict(entry.get("outputs") or {})
        return True

    def _may_have_started(self) -> bool:
        # A node may end ComfyUI before the socket tells of it; the log then has the prompt.
        return self._started or self._process.last_prompt_id == self.prompt_id

    def _failure(self) -> ComfyUIUnavailable | OutOfMemory | None:
        failure = self._process.failure("while the workflow ran", self.prompt_id)
        if failure is None or self._may_have_started():
            return failure
        return ComfyUIUnavailable(failure.sentence, failure.details)  # whatever it was, it was not this workflow

    def _check_stall(self) -> None:
        # While the socket does not tell of the prompt, progress bars in the log do.
        seen_at = self._seen_at if self._whole else max(self._seen_at, self._process.last_output_at)
        if time.monotonic() - seen_at < self._limits.stall_s:
            return
        if self._is_next:
            self._process.condemn(f"took up no workflow for {self._limits.stall_s:g} s")
            return
        where = "" if self._running is None else f" in node {self._running[0]}"
        raise ComfyUIUnavailable(
            f"the workflow showed no sign of life for {self._limits.stall_s:g} s{where} and was ended; send the "
            "job again, or allow for longer silence by COMFY_STALL_LIMIT_S"
        )

    def _abandon(self) -> bool:
        """Take the prompt out of the queue and off the GPU; a ComfyUI that does not let go of it is ended.

        Returns:
            Whether it let go of it, or had ended by itself.
        """
        deadline = time.monotonic() + self._limits.interrupt_s
        while self._process.failure() is None:
            try:
                if not self._client.is_queued(self.prompt_id):
                    return True
                self._client.delete_queue_item(self.prompt_id)
                self._client.interrupt(self.prompt_id)
            except ComfyUIUnavailable as error:
                log.warning("could not take the prompt out: %s", error, extra={"action": "prompt.abandon_failed"})
            if time.monotonic() >= deadline:
                self._process.condemn(f"did not stop a workflow within {self._limits.interrupt_s:g} s")
                return False
            time.sleep(TICK_S)
        return True

    def _forget(self) -> None:
        for _ in range(FORGET_TRIES):
            if self._process.failure() is not None:
                return
            try:
                self._client.delete_history(self.prompt_id)
                return
            except ComfyUIUnavailable as error:
                log.warning("could not delete the history: %s", error, extra={"action": "prompt.forget_failed"})
            time.sleep(TICK_S)


def _interrupted() -> JobCancelled:
    return JobCancelled("the prompt was interrupted before its end; send the job again")
