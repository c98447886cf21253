"""Estimates how long a workflow will still use the GPU, so that the next job is fetched in time.

An estimate that is too long leaves the GPU idle for a moment. One that is too short makes a job
wait behind a long one, although another worker could have taken it. So an unknown time counts as
endless.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from comfy_worker.comfyui.events import (
    Cached,
    Event,
    Executing,
    Failed,
    Finished,
    Interrupted,
    Progress,
)

__all__ = ["DurationMemory", "RemainingTime", "duration_key"]

KEPT_WORKFLOWS = 500
KEPT_RUNS = 3
# Inputs that differ between jobs but do not change how long a job takes.
IDLE_INPUTS = frozenset({"seed", "noise_seed", "color", "text", "prompt", "filename_prefix"})
# Inputs that name a file, whose size decides how long a job takes.
FILE_INPUTS = frozenset({"image", "mask", "video", "audio", "file", "upload"})
LONGEST_WORD = 100


class DurationMemory:
    """How long workflows and node classes took on this worker; may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workflows: OrderedDict[str, deque[float]] = OrderedDict()
        self._classes: dict[str, float] = {}

    def note_workflow(self, key: str, seconds: float) -> None:
        """Remember a run of a workflow."""
        with self._lock:
            self._workflows.setdefault(key, deque(maxlen=KEPT_RUNS)).append(seconds)
            self._workflows.move_to_end(key)
            if len(self._workflows) > KEPT_WORKFLOWS:
                self._workflows.popitem(last=False)

    def note_class(self, class_type: str, seconds: float) -> None:
        """Remember a run of a node.

        Args:
            class_type: its class.
            seconds: ``inf`` for a node that counts steps: its next run may have any number of them.
        """
        with self._lock:
            self._classes[class_type] = max(seconds, self._classes.get(class_type, 0.0))

    def of_workflow(self, key: str) -> float:
        """Return the longest of a workflow's last runs, in seconds; ``inf`` if there was none."""
        with self._lock:
            return max(self._workflows.get(key, ()), default=math.inf)

    def of_class(self, class_type: str) -> float:
        """Return the longest run of a class, in seconds; ``inf`` if there was none."""
        with self._lock:
            return self._classes.get(class_type, math.inf)


class RemainingTime:
    """The estimate for one prompt, from its events and from earlier runs.

    Args:
        workflow: the graph that is queued, in API format.
        memory: the earlier runs.
        clock: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        workflow: Mapping[str, Any],
        memory: DurationMemory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._classes = {node_id: str(node["class_type"]) for node_id, node in workflow.items()}
        self._key = duration_key(workflow)
        self._memory = memory
        self._clock = clock
        self._waiting = set(self._classes)
        self._began: float | None = None
        self._running: str | None = None
        self._node_began = 0.0
        self._first_step: tuple[int, float] | None = None
        self._steps_left = 0
        self._step_s = math.inf

    @property
    def whole_s(self) -> float:
        """How long the whole prompt took before, in seconds; ``inf`` where it never ran."""
        return self._memory.of_workflow(self._key)

    def follow(self, event: Event | None) -> None:
        """Note an event of the prompt."""
        now = self._clock()
        match event:
            case Cached(nodes=nodes):
                self._waiting -= set(nodes)
            case Executing(node_id=node_id):
                self._began = now if self._began is None else self._began
                self._end_node(now)
                self._running, self._node_began = node_id, now
                self._waiting.discard(node_id)
            case Progress(node_id=node_id, value=value, maximum=maximum) if (
                node_id == self._running
            ):
                self._note_step(value, maximum, now)
            case Failed() | Interrupted():
                self._key, self._running = "", None  # a complete run would take another time
            case Finished():
                self._end_node(now)
                if self._began is not None and self._key:
                    self._memory.note_workflow(self._key, now - self._began)

    def seconds(self) -> float:
        """Return how long the prompt will still run; ``inf`` if unknown, or before it runs."""
        if self._began is None:
            return math.inf
        now = self._clock()
        total_s = self._memory.of_workflow(self._key)
        elapsed_s = now - self._began
        if elapsed_s < total_s < math.inf:
            return total_s - elapsed_s
        waiting_classes = (self._classes[node_id] for node_id in self._waiting)
        waiting_s = sum(self._memory.of_class(class_type) for class_type in waiting_classes)
        return self._of_running(now) + waiting_s

    def _of_running(self, now: float) -> float:
        if self._running is None:
            return 0.0
        if self._first_step is not None:
            return self._steps_left * self._step_s
        known_s = self._memory.of_class(self._classes.get(self._running, ""))
        elapsed_s = now - self._node_began
        return known_s - elapsed_s if elapsed_s < known_s else math.inf

    def _note_step(self, value: int, maximum: int, now: float) -> None:
        if self._first_step is None or value < self._first_step[0]:
            self._first_step = (value, now)
        first, began = self._first_step
        self._steps_left = max(maximum - value, 0)
        self._step_s = (now - began) / (value - first) if value > first else math.inf

    def _end_node(self, now: float) -> None:
        if self._running is not None and self._running in self._classes:
            seconds = now - self._node_began if self._first_step is None else math.inf
            self._memory.note_class(self._classes[self._running], seconds)
        self._running, self._first_step = None, None


def duration_key(workflow: Mapping[str, Any]) -> str:
    """Build a key that is equal for workflows of the same duration; empty if a file decides it.

    Args:
        workflow: in API format.
    """
    parts = []
    for node_id, node in sorted(workflow.items()):
        inputs = node["inputs"]
        if any(isinstance(inputs.get(name), str) for name in FILE_INPUTS):
            return ""
        kept = [(name, value) for name, value in inputs.items() if _decides(name, value)]
        parts.append(f"{node_id} {node['class_type']} {sorted(kept, key=str)}")
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()


def _decides(name: str, value: object) -> bool:
    """Whether an input may decide how long a workflow takes."""
    if name in IDLE_INPUTS:
        return False
    return not isinstance(value, str) or (len(value) <= LONGEST_WORD and " " not in value)
