"""Keeps one ComfyUI running for all jobs: boots it, watches it, and boots another when it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any

from comfy_common.container_memory import free_memory_mb, memory_limit_bytes
from comfy_common.environment import hide_own_secrets
from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.events import EventStream
from comfy_worker.comfyui.execution import Execution, ExecutionResult, Timeouts
from comfy_worker.comfyui.history import HistoryCleaner
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.model_memory import ModelMemory
from comfy_worker.comfyui.process import MIN_TIMEOUT_S, ComfyUIProcess
from comfy_worker.comfyui.runaways import Runaways
from comfy_worker.deadline import TICK_S, Deadline
from comfy_worker.errors import (
    ComfyUIUnavailable,
    GpuFault,
    JobCancelled,
    JobTimedOut,
    OutOfMemory,
    WorkerError,
    brief,
)
from comfy_worker.startup import start_times
from comfy_worker.workflow.model_files import CheckContext, model_files
from comfy_worker.workflow.node_defs import MissingNodeReason, NodeDefs

__all__ = ["ComfyUIInstance", "ComfyUISupervisor"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
FREE_S = 0.5
FAILURES_UNTIL_FRESH_WORKER = 3
LONGEST_PAUSE_S = 30.0
CLOSE_S = 30.0
LAST_WORDS_S = 3.0


class ComfyUIInstance:
    """One running ComfyUI, which answers.

    Args:
        process: has answered ``/system_stats``.
        timeouts: how long to wait for it.
        runaways: the graphs that are refused because ComfyUI had to be ended for them before.

    Raises:
        ComfyUIUnavailable: it did not list its node classes within the time for its boot.

    Attributes:
        process: its process and folders.
        client: its routes.
        events: its websocket.
        history: deletes the prompts that ended.
        defs: its node classes, with the model files found when they were last read.
        has_completed_prompt: whether a workflow has ended well.
    """

    def __init__(
        self, process: ComfyUIProcess, timeouts: Timeouts, runaways: Runaways | None = None
    ) -> None:
        self.process = process
        self._runaways = runaways or Runaways()
        # Half of the time, so that a cancel can be tried twice.
        self.client = ComfyUIClient(
            process.base_url,
            timeouts.silence_s,
            timeouts.interrupt_s / 2,
            has_cancel_route=process.version.has_cancel_route,
        )
        self._memory = ModelMemory(memory_limit_bytes(), lambda: free_memory_mb() * 1e6)
        self.has_completed_prompt = False
        self._timeouts = timeouts
        self._users = 0
        self._is_closing = False
        self._lock = threading.Lock()
        # ComfyUI searches a slow volume for models now. Only the boot's own limit counts: with the
        # limit for silence, each boot would be given up and the next one begun.
        try:
            self._read_defs(timeout_s=process.boot_time_left_s())
        except ComfyUIUnavailable:
            self.client.close()
            raise
        self.events = EventStream(process.base_url)
        self.history = HistoryCleaner(self.client, process)

    def execute(
        self, workflow: dict[str, Any], deadline: Deadline, **options: Any
    ) -> ExecutionResult:
        """Queue a workflow and wait for its end; takes the arguments of :meth:`Execution.run`.

        A workflow that runs out of memory gets a second try with all other models unloaded.

        Raises:
            WorkflowRefused: ComfyUI had to be ended twice because of this workflow.
        """
        self._runaways.check(workflow)
        self._make_room(workflow)
        try:
            result = self._execute(workflow, deadline, options)
        except OutOfMemory:
            if self.process.failure() is not None:
                raise
            log.warning(
                "out of memory; trying again without other models", extra={"action": "memory.free"}
            )
            self._free_now()
            try:
                result = self._execute(workflow, deadline, options)
            except OutOfMemory as error:
                raise OutOfMemory(
                    f"{error}; no other job was using memory", error.details
                ) from None
            except ComfyUIUnavailable as error:
                raise _not_retryable(error) from None  # the first try had started nodes
        self.has_completed_prompt = True
        self._runaways.forgive(workflow)
        self._memory.workflow_ended()
        return result

    def _make_room(self, workflow: dict[str, Any]) -> None:
        """Unload other models if those of a workflow do not fit into memory beside them."""
        # A cache that keeps to the container's memory makes room by itself.
        if self.process.version.respects_container_memory:
            return
        sizes: dict[str, int] = {}
        for model in model_files(workflow, self.defs, CheckContext()):
            # What is wrong with the file, or with ComfyUI, shows when the workflow runs.
            with suppress(OSError, ComfyUIUnavailable):
                if path := self.model_path(model.folder, model.file):
                    sizes[str(path)] = path.stat().st_size
        if self._memory.must_unload(sizes):
            log.info(
                "unloading models: those of this workflow do not fit beside them",
                extra={"action": "memory.unload"},
            )
            self._free_now()

    def _free_now(self) -> None:
        self.free()
        time.sleep(FREE_S)  # the prompt thread frees when it wakes, unless a prompt is there first

    def free(self) -> None:
        """Unload models and cached results before the next prompt; a failure is only logged."""
        try:
            self.client.free()
        except ComfyUIUnavailable as error:
            log.warning("could not free memory: %s", error, extra={"action": "memory.free_failed"})

    def _execute(
        self, workflow: dict[str, Any], deadline: Deadline, options: Mapping[str, Any]
    ) -> ExecutionResult:
        execution = Execution(self.client, self.events, self.process, self._timeouts, self.history)
        try:
            return execution.run(workflow, deadline, **options)
        except GpuFault:
            self.process.mark_failed("met an error of the GPU")
            raise
        except (ComfyUIUnavailable, JobCancelled, JobTimedOut) as error:
            if execution.ran_away:
                self._note_runaway(error, workflow, execution.running_node)
            raise

    def _note_runaway(
        self, error: WorkerError, workflow: dict[str, Any], node_id: str | None
    ) -> None:
        """Remember a graph for which ComfyUI had to be ended, and say so in the job's error.

        A loader that reads a model from a slow disk cannot be interrupted either. It is the same
        node in the jobs of all clients, so it is never refused.
        """
        node = workflow.get(node_id or "")
        if node and model_files({str(node_id): node}, self.defs, CheckContext()):
            _add_remedy(
                error, workflow, node_id, "raise INTERRUPT_LIMIT_S where models load slowly"
            )
            return
        self._runaways.note(workflow, node_id)
        _add_remedy(
            error,
            workflow,
            node_id,
            "give the node other inputs, since a graph that does so twice is refused for a while",
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep its folders until the block ends, even if ComfyUI ends before that."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            self._close_if_unused()

    def watch(self, closed: threading.Event) -> None:
        """Return when it cannot be used any more or ``closed`` is set; end it if it is silent.

        A node may hold Python's lock for so long that HTTP is not answered. ComfyUI is alive as
        long as it writes to its log. Then the limit for a workflow without a sign of life counts.
        """
        silent_since: float | None = None
        next_look = time.monotonic() + LOOK_S
        while self.process.failure() is None and not closed.wait(TICK_S):
            request_at = time.monotonic()
            if request_at < next_look:
                continue
            if self.client.answers():
                silent_since = None
            else:
                silent_since = silent_since or request_at
                self._check_silence(silent_since)
            next_look = time.monotonic() + LOOK_S

    def _check_silence(self, silent_since: float) -> None:
        """End a ComfyUI that has left HTTP unanswered for too long."""
        silence_s, stall_s = self._timeouts.silence_s, self._timeouts.stall_s
        now = time.monotonic()
        if now - max(silent_since, self.process.last_output_at) >= silence_s:
            self.process.mark_failed(f"left HTTP unanswered for {silence_s:g} s")
        elif now - silent_since >= max(silence_s, stall_s):
            self.process.mark_failed(
                f"left HTTP unanswered for {stall_s:g} s, although it wrote to its log"
            )

    def close_when_idle(self) -> None:
        """Close it as soon as no job uses it any more."""
        self._is_closing = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            if self._users or not self._is_closing:
                return
            self._is_closing = False
        self.close()

    def refresh(self) -> None:
        """Read the node classes again, so that newly arrived model files count."""
        self._read_defs()

    def _read_defs(self, timeout_s: float | None = None) -> None:
        self.defs = NodeDefs(
            self.client.object_info(timeout_s),
            self.client.validated_inputs(timeout_s),
            self.client.node_replacements(timeout_s),
        )

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        return self.client.model_folders()

    @property
    def version(self) -> str:
        """The version of this ComfyUI; empty if its folder does not tell."""
        return self.process.version.name

    def model_path(self, folder: str, name: str) -> Path | None:
        """Find a model file on the disk.

        Args:
            folder: ``checkpoints``, ``loras`` ... as ComfyUI names it.
            name: as ComfyUI lists it, with its subfolder.
        """
        candidates = (Path(root) / name for root in self.searched(folder))
        return next((path for path in candidates if path.is_file()), None)

    def validate(self, workflow: dict[str, Any]) -> dict[str, Any] | None:
        """List what ComfyUI finds wrong with a workflow; see :meth:`ComfyUIClient.validate`."""
        return self.client.validate(workflow)

    def explain(self, class_type: str) -> MissingNodeReason | None:
        """Say why a class is missing although it is installed; None if it is not installed."""
        return self.process.packs.explain(class_type)

    def searched(self, folder: str) -> list[str]:
        """List the folders in which a type of model is searched, in order; some may not exist."""
        return self._folders.get(folder, [])

    def close(self) -> None:
        """Close the connections and end the process."""
        self.events.close()
        self.history.close()
        self.client.close()
        self.process.stop()


def pause_s(failures: int) -> float:
    """Return the seconds to wait before the next boot after failures in a row: 0, 2, 4, 8 ..."""
    return 0.0 if failures == 1 else min(2.0 ** (failures - 1), LONGEST_PAUSE_S)


def _not_retryable(error: WorkerError) -> WorkerError:
    """Mark an error as not retryable: a second attempt would fail the same way."""
    if isinstance(error, ComfyUIUnavailable):
        error.try_again = False
    return error


def _add_remedy(
    error: WorkerError, workflow: dict[str, Any], node_id: str | None, remedy: str
) -> None:
    """Say in an error that a node could not be interrupted, and what its client can do."""
    where = "a node"
    if node_id in workflow:
        where = f"node {brief(node_id)} ({brief(workflow[node_id]['class_type'])})"
    error.sentence += (
        f"; {where} could not be interrupted, so ComfyUI was started again without its loaded "
        f"models: {remedy}"
    )
    error.args = (error.sentence,)


def _copy(error: WorkerError) -> WorkerError:
    """Make an equal error that was never raised.

    If many jobs raise one error, its traceback grows by their frames and keeps their data alive.
    """
    copy = type(error)(error.sentence, [dict(detail) for detail in error.details])
    copy.log_text = error.log_text
    return copy


class ComfyUISupervisor:
    """Keeps one ComfyUI running in a thread of its own, and returns it to jobs while it answers.

        booting ── answers ──> up ── fails ──> pausing ──> booting ...
           └────── fails: waiting jobs get the error ──^

    There is no pause after the first failure. Each further failure without a completed workflow in
    between makes the pause longer.

    Args:
        options: how to start it, or a function that finds this out before each boot: it looks at
            the network volume, which may hang.
        timeouts: how long to wait for it.
    """

    def __init__(
        self, options: LaunchOptions | Callable[[], LaunchOptions], timeouts: Timeouts | None = None
    ) -> None:
        self._options = options
        self._timeouts = timeouts or Timeouts()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: ComfyUIInstance | None = None
        self._booting: ComfyUIProcess | None = None
        self._boot_error: WorkerError | None = None
        self._failures = 0
        self._boots = 0
        self._closed = threading.Event()
        self._runaways = Runaways()

    def start(self) -> None:
        """Begin to boot, and return at once; a second call does nothing."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                hide_own_secrets()  # node packs run as the same user
                self._thread = threading.Thread(
                    target=self._keep, name="comfyui-keeper", daemon=True
                )
                self._thread.start()

    @property
    def is_up(self) -> bool:
        """Whether ComfyUI can be used now."""
        return self._usable() is not None

    @property
    def needs_fresh_worker(self) -> bool:
        """Whether ComfyUI failed at its start, or too often, so that a fresh worker may help."""
        if self._boot_error is not None:
            return True
        running = self._usable()
        if running is not None and running.has_completed_prompt:
            return False
        return self._failures >= FAILURES_UNTIL_FRESH_WORKER

    def ready(self, deadline: Deadline) -> ComfyUIInstance:
        """Wait until ComfyUI answers, for one boot at most.

        Args:
            deadline: when to give up waiting.

        Raises:
            ComfyUIUnavailable: it could not be started, with its last log lines.
            OutOfMemory: the kernel killed it while it started because memory ran out.
            JobCancelled: the deadline was reached.
            JobTimedOut: the deadline was reached.
        """
        self.start()
        boots = self._boots
        while (running := self._usable()) is None:
            deadline.check()
            if self._closed.wait(TICK_S):
                raise _not_retryable(ComfyUIUnavailable("the worker is ending; send the job again"))
            if self._boots > boots and self._boot_error is not None:
                raise _not_retryable(_copy(self._boot_error))
        return running

    def wait_until_settled(self, deadline: Deadline) -> None:
        """Wait until ComfyUI answers or has been found dead, for the limit of an interrupt at most.

        A ComfyUI that dies breaks its connections a moment before its process has ended.

        Args:
            deadline: when to give up waiting.

        Raises:
            JobCancelled: the deadline was reached.
            JobTimedOut: the deadline was reached.
        """
        gives_up_at = time.monotonic() + self._timeouts.interrupt_s
        while (running := self._usable()) is not None and time.monotonic() < gives_up_at:
            if running.client.answers():
                return
            deadline.check()
            time.sleep(TICK_S)

    def close(self) -> None:
        """End ComfyUI for good."""
        self._closed.set()
        running, booting = self._running, self._booting
        process = booting if running is None else running.process
        if process is not None:
            process.stop()
        if self._thread is not None:
            self._thread.join(CLOSE_S)  # a volume that hangs may block it for ever

    def _usable(self) -> ComfyUIInstance | None:
        running = self._running
        return running if running is not None and running.process.failure() is None else None

    def _keep(self) -> None:
        while not self._closed.is_set():
            running = self._running = self._boot()
            self._boots += 1
            if running is not None:
                running.watch(self._closed)
                self._failures = 0 if running.has_completed_prompt else self._failures
                if (failure := running.process.failure()) is not None and not self._closed.is_set():
                    log.warning("%s", failure.log_text, extra={"action": "comfyui.died"})
                self._running = None
                running.close_when_idle()
            self._failures += 1
            self._closed.wait(pause_s(self._failures))

    def _boot(self) -> ComfyUIInstance | None:
        began = time.monotonic()
        process: ComfyUIProcess | None = None
        try:
            options = self._options() if callable(self._options) else self._options
            process = self._booting = ComfyUIProcess(options)
            if not self._closed.is_set():
                process.start()
                process.wait_ready(self._closed)
            if not self._closed.is_set():
                running = self._instance(process)
                seconds = time.monotonic() - began
                log.info("ComfyUI ready after %.1f s", seconds, extra={"action": "comfyui.ready"})
                start_times.mark("ComfyUI ready")
                self._boot_error = None
                return running
        except WorkerError as error:
            if not self._closed.is_set():
                log.error("%s: %s", error, error.details, extra={"action": "comfyui.boot_failed"})
            self._boot_error = _copy(error)
        except Exception as error:  # the outermost place of this thread: it boots ComfyUI again
            log.exception("ComfyUI could not be started", extra={"action": "comfyui.boot_failed"})
            self._boot_error = ComfyUIUnavailable(
                f"ComfyUI could not be started: {error}; run `python3 -m comfy_setup doctor`"
            )
        finally:
            self._booting = None
        if process is not None:
            process.stop()
        return None

    def _instance(self, process: ComfyUIProcess) -> ComfyUIInstance:
        try:
            return ComfyUIInstance(process, self._timeouts, self._runaways)
        except ComfyUIUnavailable as error:
            # A ComfyUI that dies ends a moment after its connection breaks; then it has said why.
            gives_up_at = time.monotonic()
            if isinstance(error.__cause__, (ConnectionError, HTTPException)):
                gives_up_at += LAST_WORDS_S
            while process.failure() is None and time.monotonic() < gives_up_at:
                time.sleep(TICK_S)
            if process.boot_time_left_s() <= MIN_TIMEOUT_S:
                process.mark_boot_too_slow()
            if (failure := process.failure("while it was starting")) is not None:
                raise failure from None
            raise
