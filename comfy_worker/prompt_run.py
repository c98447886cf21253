"""Runs a job's prompt on ComfyUI, and passes each event of it on to all that follow it."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_worker.comfyui.events import Event
from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.comfyui.gpu_turns import GpuTurn
from comfy_worker.comfyui.progress import ProgressReport
from comfy_worker.comfyui.supervisor import ComfyUIInstance
from comfy_worker.deadline import Deadline
from comfy_worker.planning.prompt import Prompt
from comfy_worker.response.client_updates import ClientUpdates
from comfy_worker.response.results import ResultBuilder

__all__ = ["PromptRun"]


@dataclass(frozen=True)
class PromptRun:
    """One prompt on its way through ComfyUI.

    Attributes:
        prompt: the prompt.
        comfyui: runs it.
        progress: reports how far it is.
        updates: streams its outputs.
        results: encodes the outputs that are streamed.
        turn: notices when the GPU is about to be free.
    """

    prompt: Prompt
    comfyui: ComfyUIInstance
    progress: ProgressReport
    updates: ClientUpdates
    results: ResultBuilder
    turn: GpuTurn

    def execute(self, deadline: Deadline) -> ExecutionResult:
        """Queue the prompt and follow it to its end.

        Args:
            deadline: when to end it early.

        Raises:
            WorkerError: see :meth:`comfy_worker.comfyui.execution.Execution.run`.
        """
        self.progress.begin(self.prompt.workflow, self.comfyui.defs)
        executed = self.comfyui.execute(
            self.prompt.workflow,
            deadline,
            on_event=self._follow,
            extra_data=self.prompt.extra_data,
        )
        self.progress.finish()
        return executed

    def _follow(self, event: Event | None) -> None:
        self.progress.follow(event)
        self.turn.follow(event)
        self.updates.send_outputs(event, self.results)
