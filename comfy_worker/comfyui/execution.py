"""Queues one workflow and watches it to its end.

The outputs come from the socket's ``executed`` events. If the socket broke meanwhile, they are read
from ``/history`` instead, so that no output of ComfyUI is lost.
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
from comfy_worker.comfyui.client import CLIENT_GRAPH, ComfyUIClient
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
from comfy_worker.comfyui.history import HistoryCleaner
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.comfyui.prompt_state import NodeTimer, PromptState, SignsOfLife, Stage
from comfy_worker.deadline import TICK_S, Deadline
from comfy_worker.errors import ComfyUIUnavailable, JobCancelled, OutOfMemory, WorkerError
from comfy_worker.logs import bound, secrets_in_context

__all__ = ["Execution", "ExecutionResult", "Timeouts"]

log = logging.getLogger(__name__)

LOST_AFTER_S = 5.0


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for ComfyUI before it counts as broken, in seconds.

    Attributes:
        silence_s: how long it may leave HTTP unanswered before it is ended.
        stall_s: how long a running prompt may give no sign of life before it is ended.
        interrupt_s: how long a prompt may run on after an interrupt before ComfyUI is ended.
    """

    silence_s: float = 30.0
    stall_s: float = 300.0
    interrupt_s: float = 5.0


@dataclass
class ExecutionResult:
    """The outputs and timings of a prompt.

    Attributes:
        outputs: by node id, what each output node reported:
            ``{"images": [{filename, subfolder, type}], ...}``.
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
        timeouts: how long to wait for it.
        history: deletes the prompt from ComfyUI's history when it has ended.

    Attributes:
        prompt_id: a lower-case UUID; from 0.33 on ComfyUI takes no other form.
    """

    def __init__(
        self,
        client: ComfyUIClient,
        events: EventStream,
        process: ComfyUIProcess,
        timeouts: Timeouts,
        history: HistoryCleaner,
    ) -> None:
        self._client = client
        self._history = history
        self._events = events
        self._process = process
        self._timeouts = timeouts
        self._outputs: dict[str, dict[str, Any]] = {}
        self._error: WorkerError | None = None
        self._client_graph: Mapping[str, Any] = {}
        self._nodes = NodeTimer()
        self._state = PromptState(time.monotonic())
        self._signs = SignsOfLife(time.monotonic(), timeouts.stall_s)
        self.prompt_id = str(uuid.uuid4())

    def run(
        self,
        workflow: dict[str, Any],
        deadline: Deadline,
        *,
        on_event: Callable[[Event | None], None] = lambda _event: None,
        extra_data: Mapping[str, Any] | None = None,
    ) -> ExecutionResult:
        """Queue a workflow, wait for its end, and have ComfyUI forget it.

        Args:
            workflow: a graph in API format, filled and checked.
            deadline: when to end it early.
            on_event: gets each event of the prompt, and None after a tenth of a second without one.
            extra_data: what goes with the prompt beside its graph, such as ``preview_method``.

        Raises:
            WorkflowRefused: ComfyUI's validation found errors; nothing ran.
            ExecutionFailed: a node raised.
            OutOfMemory: a node ran out of memory, or the kernel killed ComfyUI because memory ran
                out.
            DiskFull: a node filled the disk.
            GpuFault: a node met a GPU error that this ComfyUI cannot recover from.
            JobCancelled: the job was cancelled, or somebody interrupted the prompt.
            JobTimedOut: the deadline was reached.
            ComfyUIUnavailable: ComfyUI died, lost the prompt, or shows no sign of life.
        """
        self._client_graph = (extra_data or {}).get(CLIENT_GRAPH) or {}
        self._history.settle(deadline)  # nothing of a job that ended may be left for this one
        self._process.redact_prompt(self.prompt_id, secrets_in_context())
        with bound(prompt_id=self.prompt_id), self._events.subscribed(self.prompt_id) as inbox:
            client_id = self._events.client_id()
            try:
                self._queue(workflow, client_id, extra_data)
                self._watch(inbox, deadline, on_event)
            except ComfyUIUnavailable as error:
                raise self._explained(error) from error
            finally:
                if not self._state.is_over:
                    self._abandon()
                self._history.delete(self.prompt_id)
        return ExecutionResult(self._outputs, self._nodes.node_ms)

    @property
    def ran_away(self) -> bool:
        """Whether ComfyUI had to be ended because this prompt could not be interrupted."""
        return self._process.was_marked_failed and self._may_have_started()

    @property
    def running_node(self) -> str | None:
        """The node that ran last; None if no event named one."""
        return self._nodes.node_id

    def _queue(
        self, workflow: dict[str, Any], client_id: str, extra_data: Mapping[str, Any] | None
    ) -> None:
        try:
            self._client.queue_prompt(
                workflow, prompt_id=self.prompt_id, client_id=client_id, extra_data=extra_data
            )
        except ComfyUIUnavailable:
            if not self._is_known():  # only the answer may have been lost
                raise
        log.info("queued %d nodes", len(workflow), extra={"action": "prompt.queued"})

    def _explained(self, error: ComfyUIUnavailable) -> ComfyUIUnavailable | OutOfMemory:
        """Abandon the prompt, and find the reason why ComfyUI failed."""
        failure: ComfyUIUnavailable | OutOfMemory = error
        if self._abandon():
            failure = self._failure() or error  # a ComfyUI that died has written why by now
        if isinstance(failure, ComfyUIUnavailable):
            failure.try_again = not self._may_have_started()
        return failure

    def _watch(
        self,
        inbox: queue.SimpleQueue[Event],
        deadline: Deadline,
        on_event: Callable[[Event | None], None],
    ) -> None:
        """Return when the prompt has ended well."""
        self._signs = SignsOfLife(time.monotonic(), self._timeouts.stall_s)
        while not self._state.is_over:
            deadline.check()
            event = _next_event(inbox)
            on_event(event)
            self._note(event, time.monotonic())
            if not self._state.is_over:
                self._check_process()
            if not self._state.is_over and time.monotonic() >= self._signs.next_look:
                self._look(is_inbox_empty=inbox.empty())
        if self._error is not None:
            raise self._error

    def _note(self, event: Event | None, now: float) -> None:
        """Take in what an event says of the prompt."""
        if event is not None:
            self._signs.event_came(now)
        match event:
            case Executing(node_id=node_id):
                self._nodes.begin(node_id, now)
                self._state.move(Stage.RUNNING, now)
            case Executed(node_id=node_id, output=output):
                self._outputs[node_id] = dict(output)
            case Failed():
                self._error = node_error(event, self._client_graph)
            case Interrupted():
                self._error = _interrupted()
            case Disconnected():
                self._signs.socket_broke(now)
            case Finished():
                self._finish(now)

    def _finish(self, now: float) -> None:
        self._nodes.end(now)
        # Events may be missing after a break; then /history tells how it ended.
        if self._signs.is_socket_whole:
            self._state.move(Stage.FINISHED, now)

    def _check_process(self) -> None:
        if (failure := self._failure()) is not None:
            raise failure

    def _look(self, *, is_inbox_empty: bool) -> None:
        """Ask ComfyUI itself where the prompt is."""
        self._signs.looked(time.monotonic())
        self._ask_queue_and_history()
        if not self._state.is_over:
            self._check_stall()
        elif self._signs.is_socket_whole and is_inbox_empty:
            log.warning("the websocket is deaf", extra={"action": "comfyui.socket_deaf"})
            self._events.break_connection()

    def _is_known(self) -> bool:
        try:
            if self._client.is_queued(self.prompt_id):
                return True
            return self._client.get_history(self.prompt_id) is not None
        except ComfyUIUnavailable:
            return False

    def _ask_queue_and_history(self) -> None:
        """Ask where the prompt is; if it ended, take its outputs or its error from ``/history``."""
        try:
            queued = self._client.get_queue()
            entry = self._client.get_history(self.prompt_id)
        except ComfyUIUnavailable as error:
            # The supervisor finds out whether ComfyUI is dead; a silent one may answer later.
            log.warning(
                "could not look for the prompt: %s", error, extra={"action": "prompt.look_failed"}
            )
            return
        now = time.monotonic()
        self._state.move(self._stage(queued, entry), now)
        if entry is not None:
            self._take_history(entry)
        elif self._state.stage is Stage.QUEUED:
            self._signs.waits_its_turn(now)
        elif self._state.stage is Stage.MISSING and now - self._state.since > LOST_AFTER_S:
            raise ComfyUIUnavailable("ComfyUI lost the prompt; send the job again")

    def _stage(self, queued: Mapping[str, Any], entry: Mapping[str, Any] | None) -> Stage:
        if entry is not None:
            return Stage.FINISHED
        if _holds(queued["queue_running"], self.prompt_id):
            return Stage.RUNNING
        if not _holds(queued["queue_pending"], self.prompt_id):
            return Stage.MISSING
        return Stage.QUEUED if queued["queue_running"] else Stage.NEXT

    def _take_history(self, entry: Mapping[str, Any]) -> None:
        for message_type, data in (entry.get("status") or {}).get("messages") or ():
            if message_type == "execution_error":
                self._error = node_error(failed(self.prompt_id, data), self._client_graph)
                return
            if message_type == "execution_interrupted":
                self._error = _interrupted()
                return
        self._error = None
        self._outputs = dict(entry.get("outputs") or {})

    def _may_have_started(self) -> bool:
        # A node may end ComfyUI before the socket tells of it; the log then has the prompt.
        return self._state.has_started or self._process.last_prompt_id == self.prompt_id

    def _failure(self) -> ComfyUIUnavailable | OutOfMemory | None:
        failure = self._process.failure("while the workflow ran", self.prompt_id)
        if failure is None or self._may_have_started():
            return failure
        # Whatever the reason was, it was not this workflow.
        return ComfyUIUnavailable(failure.sentence, failure.details)

    def _check_stall(self) -> None:
        silence_s = self._signs.silence_s(time.monotonic(), self._process.last_output_at)
        stall_s = self._timeouts.stall_s
        if silence_s < stall_s:
            return
        if self._state.stage is Stage.NEXT:
            self._process.mark_failed(f"took up no workflow for {stall_s:g} s")
            return
        where = "" if self.running_node is None else f" in node {self.running_node}"
        raise ComfyUIUnavailable(
            f"the workflow showed no sign of life for {stall_s:g} s{where} and was ended; send the "
            "job again, or raise COMFY_STALL_LIMIT_S"
        )

    def _abandon(self) -> bool:
        """Take the prompt out of the queue and off the GPU; end a ComfyUI that does not release it.

        Returns:
            Whether ComfyUI released it, or had ended by itself.
        """
        gives_up_at = time.monotonic() + self._timeouts.interrupt_s
        self._state.move(Stage.ABANDONED, time.monotonic())
        while self._process.failure() is None:
            try:
                if not self._client.is_queued(self.prompt_id):
                    return True
                self._client.cancel(self.prompt_id)
            except ComfyUIUnavailable as error:
                log.warning(
                    "could not cancel the prompt: %s",
                    error,
                    extra={"action": "prompt.abandon_failed"},
                )
            if time.monotonic() >= gives_up_at:
                self._process.mark_failed(
                    f"did not stop a workflow within {self._timeouts.interrupt_s:g} s"
                )
                return False
            time.sleep(TICK_S)
        return True


def _next_event(inbox: queue.SimpleQueue[Event]) -> Event | None:
    try:
        return inbox.get(timeout=TICK_S)
    except queue.Empty:
        return None


def _holds(items: list[Any], prompt_id: str) -> bool:
    return any(item[1] == prompt_id for item in items)


def _interrupted() -> JobCancelled:
    return JobCancelled("the prompt was interrupted before its end; send the job again")
