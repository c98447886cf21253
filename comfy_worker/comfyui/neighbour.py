"""The ComfyUI that this worker runs: booted once, shared by all jobs, booted again when it has died.

Owns the order of process, client and websocket. Knows nothing of jobs.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.events import EventStream
from comfy_worker.comfyui.execution import Execution, ExecutionResult
from comfy_worker.comfyui.process import ComfyUIProcess, LaunchOptions
from comfy_worker.errors import ComfyUIUnavailable, JobCancelled
from comfy_worker.graph.nodes import NodeDefs

__all__ = ["ComfyUI", "RunningComfyUI"]

log = logging.getLogger(__name__)


class RunningComfyUI:
    """A ComfyUI that answers.

    Attributes:
        process: its process and folders.
        client: its routes.
        events: its websocket.
        defs: the node classes that it has, with the model files found when they were last read.
    """

    def __init__(self, process: ComfyUIProcess) -> None:
        self.process = process
        self.client = ComfyUIClient(process.base_url)
        self.refresh()
        self.events = EventStream(process.base_url)

    def execute(self, workflow: dict[str, Any], cancelled: threading.Event, **options: Any) -> ExecutionResult:
        """Queue a workflow and wait for its end; arguments as :meth:`Execution.run` takes them."""
        return Execution(self.client, self.events, lambda: self.process.alive).run(workflow, cancelled, **options)

    def refresh(self) -> None:
        """Read the node classes anew, so that model files which have just arrived count."""
        self.defs = NodeDefs(self.client.object_info(), self.client.validated_inputs())

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        return self.client.model_folders()

    def model_path(self, folder: str, name: str) -> Path | None:
        """Where a model file lies.

        Args:
            folder: ``checkpoints``, ``loras`` ... as ComfyUI names it.
            name: as it stands in the folder's list, with its subfolder.
        """
        candidates = (Path(root) / name for root in self._folders.get(folder, ()))
        return next((path for path in candidates if path.is_file()), None)

    def close(self) -> None:
        """Close the connections and end the process."""
        self.events.close()
        self.client.close()
        self.process.stop()


class ComfyUI:
    """Boots ComfyUI in the background and hands it out once it answers."""

    def __init__(self, options: LaunchOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._boot: threading.Thread | None = None
        self._running: RunningComfyUI | None = None
        self._error: ComfyUIUnavailable | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to boot and return at once; does nothing while ComfyUI runs or boots."""
        with self._lock:
            if self.is_up or self._closed.is_set() or (self._boot is not None and self._boot.is_alive()):
                return
            died, self._running = self._running, None
            self._error = None
            self._boot = threading.Thread(target=self._run, args=(died,), name="comfyui-boot", daemon=True)
            self._boot.start()

    @property
    def is_up(self) -> bool:
        """Whether ComfyUI answers now."""
        return self._running is not None and self._running.process.alive

    def ready(self, cancelled: threading.Event) -> RunningComfyUI:
        """Wait until ComfyUI answers.

        Args:
            cancelled: set by another thread to give up waiting.

        Raises:
            ComfyUIUnavailable: it could not be started, with its last log lines.
            JobCancelled: ``cancelled`` was set first.
        """
        self.start()
        while True:
            boot = self._boot
            if boot is not None:
                boot.join(timeout=0.1)
            if cancelled.is_set():
                raise JobCancelled("the job was cancelled")
            if self._running is not None and self.is_up:
                return self._running
            if self._error is not None:
                raise self._error
            if boot is None or not boot.is_alive():
                raise ComfyUIUnavailable("ComfyUI is not running; send the job again")

    def close(self) -> None:
        """End ComfyUI for good."""
        self._closed.set()
        if self._boot is not None:
            self._boot.join()
        if self._running is not None:
            self._running.close()

    def _run(self, died: RunningComfyUI | None) -> None:
        began = time.monotonic()
        if died is not None:
            log.warning("ComfyUI died; starting it again", extra={"action": "comfyui.died"})
            died.close()
        process = ComfyUIProcess(self._options)
        try:
            process.start()
            process.wait_ready(self._closed)
            if not self._closed.is_set():
                self._running = RunningComfyUI(process)
                log.info("ComfyUI ready after %.1f s", time.monotonic() - began, extra={"action": "comfyui.ready"})
                return
        except ComfyUIUnavailable as error:
            log.error("%s: %s", error, error.details, extra={"action": "comfyui.boot_failed"})
            self._error = error
        except OSError as error:
            log.error("%s", error, extra={"action": "comfyui.boot_failed"})
            self._error = ComfyUIUnavailable(f"ComfyUI could not be started: {error}; run comfy_setup doctor")
        process.stop()
