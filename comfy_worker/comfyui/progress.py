"""Reports how far a job is, as a share of its time."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from comfy_worker.comfyui.events import Cached, Event, Executing, Preview, Progress
from comfy_worker.comfyui.node_times import NodeTimes
from comfy_worker.comfyui.run_estimate import RunEstimate
from comfy_worker.workflow.graph import Workflow, ancestors, title_of
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["INTERVAL_S", "ProgressReport"]

INTERVAL_S = 0.5
PREVIEW_LIMIT = 100_000
# All of it is over only when the result is there.
LAST_PERCENT = 99


class ProgressReport:
    """Reports how far one job is, at most twice a second.

    Args:
        tell: gets ``{percent, message}``. While a node runs, it also gets ``node_id``, ``node``
            (the node's title), ``step`` and ``steps`` if the node counts them, ``eta_s`` (about how
            many seconds are left) if that is known, and ``preview``, a data URI, if there is a new
            one.
        times: how long nodes ran before on this worker.
        clock: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        tell: Callable[[dict[str, Any]], None],
        times: NodeTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._next_s = 0.0
        self._is_new = False
        self._workflow: Workflow = {}
        self._times = times or NodeTimes()
        self._estimate = RunEstimate({}, set(), self._times)
        self._percent = 0
        self._running = ""
        self._step: tuple[int, int] | None = None
        self._preview: Preview | None = None

    def say(self, message: str) -> None:
        """Report what happens before the graph runs."""
        self._tell({"percent": 0, "message": message})
        self._next_s = self._clock() + INTERVAL_S

    def begin(self, workflow: Workflow, defs: NodeDefs) -> None:
        """Set the graph that is going to run. Only nodes that an output needs count.

        Args:
            workflow: filled and checked.
            defs: the node classes.
        """
        outputs = []
        for node_id, node in workflow.items():
            node_def = defs.get(node["class_type"])
            if node_def is not None and node_def.is_output:
                outputs.append(node_id)
        self._workflow = workflow
        needed = {*outputs, *ancestors(workflow, *outputs)}
        self._estimate = RunEstimate(workflow, needed, self._times)
        self._running, self._step = "", None

    def finish(self) -> None:
        """Note that the graph has run to its end, so that the next estimate is better."""
        self._estimate.finish(self._clock())

    def follow(self, event: Event | None) -> None:
        """Note an event of the prompt, and report it if enough time has passed.

        Args:
            event: None if there was none, and only time has passed.
        """
        self._is_new = self._note(event) or self._is_new or self._has_moved()
        if self._is_new and self._running and self._clock() >= self._next_s:
            self._is_new = False
            self._next_s = self._clock() + INTERVAL_S
            self._tell(self._state())

    def _has_moved(self) -> bool:
        """Whether time alone has changed the percentage."""
        return self._share() > self._percent

    def _share(self) -> int:
        return min(LAST_PERCENT, int(100 * self._estimate.fraction(self._clock())))

    def _note(self, event: Event | None) -> bool:
        """Note an event; returns whether it changes the report."""
        match event:
            case Cached(nodes=nodes):
                self._estimate.skip(set(nodes))
            case Executing(node_id=node_id) if node_id in self._workflow:
                self._estimate.start_node(node_id, self._clock())
                self._running, self._step = node_id, None
            case Progress(node_id=node_id, value=value, maximum=maximum) if (
                node_id == self._running
            ):
                before, self._step = self._step, (min(value, maximum), maximum)
                if self._step == before:
                    return False
                self._estimate.note_step(min(value, maximum), maximum, self._clock())
            case Preview(image=image) if len(image) <= PREVIEW_LIMIT:
                self._preview = event
            case _:
                return False
        return True

    def _state(self) -> dict[str, Any]:
        title = title_of(self._workflow, self._running)
        state: dict[str, Any] = {"message": title, "node_id": self._running, "node": title}
        if self._step is not None:
            step, steps = self._step
            state |= {"message": f"{title}: step {step} of {steps}", "step": step, "steps": steps}
        self._percent = max(self._percent, self._share())
        if self._estimate.is_grounded():
            state["eta_s"] = round(self._estimate.left_s(self._clock()), 1)
        if self._preview is not None:
            data = base64.b64encode(self._preview.image).decode("ascii")
            state["preview"] = f"data:{self._preview.mime_type};base64,{data}"
            self._preview = None
        return {"percent": self._percent, **state}
