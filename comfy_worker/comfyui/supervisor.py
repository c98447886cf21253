"""The ComfyUI that this worker runs: booted once, shared by all jobs, watched, and booted again when it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import requests

from comfy_common.environment import hide_own_secrets
from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.events import EventStream
from comfy_worker.comfyui.execution import Execution, ExecutionResult, Limits
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.model_memory import ModelMemory
from comfy_worker.comfyui.process import MIN_TIMEOUT_S, ComfyUIProcess
from comfy_worker.comfyui.resources import free_memory_mb, memory_limit_bytes
from comfy_worker.comfyui.runaways import Runaways
from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import (
    ComfyUIUnavailable,
    GpuFault,
    JobCancelled,
    JobTimedOut,
    OutOfMemory,
    WorkerError,
    brief,
)
from comfy_worker.workflow.model_files import Sources, model_files
from comfy_worker.workflow.node_defs import Absence, NodeDefs

__all__ = ["ComfyUI", "RunningComfyUI"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
FREE_S = 0.2
FAILURES_UNTIL_WORN = 3
LONGEST_PAUSE_S = 30.0
CLOSE_S = 30.0
LAST_WORDS_S = 3.0


class RunningComfyUI:
    """A ComfyUI that answers.

    Args:
        process: has answered ``/system_stats``.
        limits: how long to be patient with it.
        runaways: the graphs that are refused since they ended ComfyUI before.

    Raises:
        ComfyUIUnavailable: it did not list its node classes before its boot's time was over.

    Attributes:
        process: its process and folders.
        client: its routes.
        events: its websocket.
        defs: the node classes that it has, with the model files found when they were last read.
        has_completed_prompt: whether a workflow has ended well.
    """

    def __init__(self, process: ComfyUIProcess, limits: Limits, runaways: Runaways | None = None) -> None:
        self.process = process
        self._runaways = runaways or Runaways()
        # Two tries to take a prompt out before its time is over.
        self.client = ComfyUIClient(
            process.base_url,
            limits.silence_s,
            limits.interrupt_s / 2,
            has_cancel_route=process.version.has_cancel_route,
        )
        self._memory = ModelMemory(memory_limit_bytes(), lambda: free_memory_mb() * 1e6)
        self.has_completed_prompt = False
        self._limits = limits
        self._users = 0
        self._is_closing = False
        self._lock = threading.Lock()
        # A slow volume is searched for models now. Only the boot's own limit counts: whoever gave up after
        # the limit for silence would boot for ever.
        self._read_defs(timeout_s=process.boot_time_left_s())
        self.events = EventStream(process.base_url)

    def execute(self, workflow: dict[str, Any], stop: Stop, **options: Any) -> ExecutionResult:
        """Queue a workflow and wait for its end; arguments as :meth:`Execution.run` takes them.

        Where memory does not suffice it is tried once more with nothing else in it.

        Raises:
            WorkflowRefused: ComfyUI had to be ended because of this workflow before, and more than once.
        """
        self._runaways.check(workflow)
        self._make_room(workflow)
        try:
            result = self._execute(workflow, stop, options)
        except OutOfMemory:
            if self.process.failure() is not None:
                raise
            log.warning("out of memory; trying again without other models", extra={"action": "memory.free"})
            self.free()
            time.sleep(FREE_S)  # the prompt thread frees when it wakes, unless a prompt is there first
            try:
                result = self._execute(workflow, stop, options)
            except OutOfMemory as error:
                raise OutOfMemory(f"{error}; it had all memory to itself", error.details) from None
            except ComfyUIUnavailable as error:
                raise _not_retryable(error) from None  # the first try had started nodes
        self.has_completed_prompt = True
        self._memory.workflow_ended()
        return result

    def _make_room(self, workflow: dict[str, Any]) -> None:
        """Unload other models if those of a workflow do not fit into memory beside them."""
        # A cache that keeps to the container's memory makes room by itself.
        if self.process.version.heeds_container_memory:
            return
        sizes: dict[str, int] = {}
        for model in model_files(workflow, self.defs, Sources()):
            # What is wrong with the file, or with ComfyUI, shows when the workflow runs.
            with suppress(OSError, ComfyUIUnavailable):
                if path := self.model_path(model.folder, model.file):
                    sizes[str(path)] = path.stat().st_size
        if self._memory.must_unload(sizes):
            log.info(
                "unloading models: those of this workflow do not fit beside them",
                extra={"action": "memory.unload"},
            )
            self.free()
            time.sleep(FREE_S)

    def free(self) -> None:
        """Have models and cached results given up before the next prompt; that it fails is only logged."""
        try:
            self.client.free()
        except ComfyUIUnavailable as error:
            log.warning("could not free memory: %s", error, extra={"action": "memory.free_failed"})

    def _execute(self, workflow: dict[str, Any], stop: Stop, options: Mapping[str, Any]) -> ExecutionResult:
        execution = Execution(self.client, self.events, self.process, self._limits)
        try:
            return execution.run(workflow, stop, **options)
        except GpuFault:
            self.process.mark_failed("met an error of the GPU")
            raise
        except (ComfyUIUnavailable, JobCancelled, JobTimedOut) as error:
            if execution.ran_away:
                self._runaways.note(workflow, execution.running_node)
                _add_remedy(error, workflow, execution.running_node)
            raise

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Its folders stay for as long as the block lasts, also where it ends meanwhile."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            self._close_if_unused()

    def watch(self, closed: threading.Event) -> None:
        """Return when it cannot be used any more, or ``closed`` is set; one that is silent is ended.

        A node may hold Python's lock for long, so that no HTTP is answered. While it writes to the log it is
        not dead; then the limit for a workflow without a sign of life counts.
        """
        silence_s, stall_s = self._limits.silence_s, self._limits.stall_s
        silent_since: float | None = None
        next_look = time.monotonic() + LOOK_S
        while self.process.failure() is None and not closed.wait(TICK_S):
            asked_at = time.monotonic()
            if asked_at < next_look:
                continue
            if self.client.answers():
                silent_since = None
            elif silent_since is None:
                silent_since = asked_at
            now = time.monotonic()
            if silent_since is not None:
                seen_at = max(silent_since, self.process.last_output_at)
                if now - seen_at >= silence_s:
                    self.process.mark_failed(f"left HTTP unanswered for {silence_s:g} s")
                elif now - silent_since >= max(silence_s, stall_s):
                    self.process.mark_failed(
                        f"left HTTP unanswered for {stall_s:g} s, although it wrote to its log"
                    )
            next_look = now + LOOK_S

    def close_when_idle(self) -> None:
        """Close it as soon as nobody uses it any more."""
        self._is_closing = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            if self._users or not self._is_closing:
                return
            self._is_closing = False
        self.close()

    def refresh(self) -> None:
        """Read the node classes anew, so that model files which have just arrived count."""
        self._read_defs()

    def _read_defs(self, timeout_s: float | None = None) -> None:
        self.defs = NodeDefs(self.client.object_info(timeout_s), self.client.validated_inputs(timeout_s))

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        return self.client.model_folders()

    def model_path(self, folder: str, name: str) -> Path | None:
        """Where a model file lies.

        Args:
            folder: ``checkpoints``, ``loras`` ... as ComfyUI names it.
            name: as it stands in the folder's list, with its subfolder.
        """
        candidates = (Path(root) / name for root in self.searched(folder))
        return next((path for path in candidates if path.is_file()), None)

    def explain(self, class_type: str) -> Absence | None:
        """Why it lacks a class that something here has; None where nothing has it."""
        return self.process.packs.explain(class_type)

    def searched(self, folder: str) -> list[str]:
        """The folders that are searched for a kind of model, first to last; they need not be there."""
        return self._folders.get(folder, [])

    def close(self) -> None:
        """Close the connections and end the process."""
        self.events.close()
        self.client.close()
        self.process.stop()


def pause_s(failures: int) -> float:
    """How long to wait before the next boot, in seconds, after so many failures in a row: 0, 2, 4, 8 ..."""
    return 0.0 if failures == 1 else min(2.0 ** (failures - 1), LONGEST_PAUSE_S)


def _not_retryable(error: WorkerError) -> WorkerError:
    """Mark an error as not retryable: a second attempt would fail the same way."""
    if isinstance(error, ComfyUIUnavailable):
        error.try_again = False
    return error


def _add_remedy(error: WorkerError, workflow: dict[str, Any], node_id: str | None) -> None:
    """Say in an error that a node could not be interrupted, and what its client can do."""
    where = "a node"
    if node_id in workflow:
        where = f"node {brief(node_id)} ({brief(workflow[node_id]['class_type'])})"
    error.sentence += (
        f"; {where} could not be interrupted, so ComfyUI was started again without its loaded models: give the "
        "node other inputs, since a graph that does so twice is refused for a while"
    )
    error.args = (error.sentence,)


def _copy(error: WorkerError) -> WorkerError:
    """Make an equal error that was never raised.

    An error that many jobs raise would keep what each of them holds: its traceback grows by their frames.
    """
    copy = type(error)(error.sentence, [dict(detail) for detail in error.details])
    copy.log_text = error.log_text
    return copy


class ComfyUI:
    """Keeps one ComfyUI running, by a thread of its own, and hands it out while it answers.

        booting ── answers ──> up ── fails ──> pausing ──> booting ...
           └────── fails: whoever waits is told ──^

    The first pause is none; each failure that follows with no workflow done between makes it longer.

    Args:
        options: how to start it; or what finds that out before each boot, by a look at the network volume,
            which may hang.
        limits: how long to be patient with it.
    """

    def __init__(self, options: LaunchOptions | Callable[[], LaunchOptions], limits: Limits | None = None) -> None:
        self._options = options
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: RunningComfyUI | None = None
        self._booting: ComfyUIProcess | None = None
        self._boot_error: WorkerError | None = None
        self._failures = 0
        self._boots = 0
        self._closed = threading.Event()
        self._runaways = Runaways()

    def start(self) -> None:
        """Begin to boot and return at once; a second call does nothing."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                hide_own_secrets()  # node packs run as the same user
                self._thread = threading.Thread(target=self._keep, name="comfyui-keeper", daemon=True)
                self._thread.start()

    @property
    def is_up(self) -> bool:
        """Whether ComfyUI can be used now."""
        return self._usable() is not None

    @property
    def is_worn(self) -> bool:
        """Whether it failed so often, or while it started, that a fresh worker may do better."""
        running = self._usable()
        crashes = self._failures >= FAILURES_UNTIL_WORN and not (running and running.has_completed_prompt)
        return crashes or self._boot_error is not None

    def ready(self, stop: Stop) -> RunningComfyUI:
        """Wait until ComfyUI answers, through one boot at most.

        Args:
            stop: when to give up waiting.

        Raises:
            ComfyUIUnavailable: it could not be started, with its last log lines.
            OutOfMemory: it was killed for want of memory while it started.
            JobCancelled: ``stop`` was due.
            JobTimedOut: ``stop`` was due.
        """
        self.start()
        boots = self._boots
        while (running := self._usable()) is None:
            stop.check()
            if self._closed.wait(TICK_S):
                raise _not_retryable(ComfyUIUnavailable("the worker is ending; send the job again"))
            if self._boots > boots and self._boot_error is not None:
                raise _not_retryable(_copy(self._boot_error))
        return running

    def close(self) -> None:
        """End ComfyUI for good."""
        self._closed.set()
        running, booting = self._running, self._booting
        process = booting if running is None else running.process
        if process is not None:
            process.stop()
        if self._thread is not None:
            self._thread.join(CLOSE_S)  # a volume that hangs may hold it for ever

    def _usable(self) -> RunningComfyUI | None:
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

    def _boot(self) -> RunningComfyUI | None:
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
                log.info("ComfyUI ready after %.1f s", time.monotonic() - began, extra={"action": "comfyui.ready"})
                self._boot_error = None
                return running
        except WorkerError as error:
            if not self._closed.is_set():
                log.error("%s: %s", error, error.details, extra={"action": "comfyui.boot_failed"})
            self._boot_error = _copy(error)
        except Exception as error:  # the outermost place of this thread: whatever it is, ComfyUI is booted again
            log.exception("ComfyUI could not be started", extra={"action": "comfyui.boot_failed"})
            self._boot_error = ComfyUIUnavailable(f"ComfyUI could not be started: {error}; run comfy_setup doctor")
        finally:
            self._booting = None
        if process is not None:
            process.stop()
        return None

    def _instance(self, process: ComfyUIProcess) -> RunningComfyUI:
        try:
            return RunningComfyUI(process, self._limits, self._runaways)
        except ComfyUIUnavailable as error:
            # One that died says why, though a moment later than its connection breaks.
            has_broken = isinstance(error.__cause__, requests.ConnectionError)
            deadline = time.monotonic() + (LAST_WORDS_S if has_broken else 0.0)
            while process.failure() is None and time.monotonic() < deadline:
                time.sleep(TICK_S)
            if process.boot_time_left_s() <= MIN_TIMEOUT_S:
                process.mark_boot_too_slow()
            if (failure := process.failure("while it was starting")) is not None:
                raise failure from None
            raise
