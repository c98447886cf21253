"""How far a job is: what ComfyUI says of its prompt, as one percentage over the whole graph.

Owns what is told and how often. Knows not where it goes.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from comfy_worker.comfyui.events import Cached, Event, Executing, Preview, Progress
from comfy_worker.workflow.graph import Workflow, ancestors, title_of
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["INTERVAL_S", "ProgressReport"]

INTERVAL_S = 0.5
PREVIEW_LIMIT = 100_000


class ProgressReport:
    """Tells how far one job is, at most twice a second.

    Args:
        tell: gets ``{percent, message}``, while a node runs also ``node_id``, ``node`` (its title), ``step`` and
            ``steps`` where it counts them, and ``preview``, a data URI, where there is a new one.
        clock: seconds that never go back.
    """

    def __init__(
        self, tell: Callable[[dict[str, Any]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._next_s = 0.0
        self._is_new = False
        self._workflow: Workflow = {}
        self._waiting: set[str] = set()
        self._needed = 0
        self._percent = 0
        self._running = ""
        self._step: tuple[int, int] | None = None
        self._preview: Preview | None = None

    def say(self, message: str) -> None:
        """Tell what happens before the graph runs."""
        self._tell({"percent": 0, "message": message})
        self._next_s = self._clock() + INTERVAL_S

    def begin(self, workflow: Workflow, defs: NodeDefs) -> None:
        """Take the graph that is going to run: each node that an output needs counts the same.

        Args:
            workflow: filled and checked.
            defs: the node classes.
        """
        declared = {node_id: defs.get(node["class_type"]) for node_id, node in workflow.items()}
        outputs = [node_id for node_id, one in declared.items() if one is not None and one.is_output]
        self._workflow = workflow
        self._waiting = {*outputs, *ancestors(workflow, *outputs)}
        self._needed = len(self._waiting)

    def follow(self, event: Event | None) -> None:
        """Take note of an event of the prompt, and tell where it is time; None: time went by."""
        match event:
            case Cached(nodes=nodes):
                self._waiting -= set(nodes)
            case Executing(node_id=node_id) if node_id in self._workflow:
                self._waiting.discard(self._running)
                self._running, self._step = node_id, None
            case Progress(node_id=node_id, value=value, maximum=maximum) if node_id == self._running:
                self._step = (min(value, maximum), maximum)
            case Preview(image=image) if len(image) <= PREVIEW_LIMIT:
                self._preview = event
            case _:
                event = None
        self._is_new = self._is_new or event is not None
        if self._is_new and self._running and self._clock() >= self._next_s:
            self._is_new = False
            self._next_s = self._clock() + INTERVAL_S
            self._tell(self._state())

    def _state(self) -> dict[str, Any]:
        title = title_of(self._workflow, self._running)
        state: dict[str, Any] = {"message": title, "node_id": self._running, "node": title}
        done = float(self._needed - len(self._waiting))
        if self._step is not None:
            step, steps = self._step
            state |= {"message": f"{title}: step {step} of {steps}", "step": step, "steps": steps}
            done += step / steps if steps else 0.0
        self._percent = max(self._percent, min(100, int(100 * done / max(1, self._needed))))
        if self._preview is not None:
            data = base64.b64encode(self._preview.image).decode("ascii")
            state["preview"] = f"data:{self._preview.mime_type};base64,{data}"
            self._preview = None
        return {"percent": self._percent, **state}
