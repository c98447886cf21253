"""Remembers how long nodes run on this worker, and guesses it for nodes that never ran here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from comfy_worker.comfyui.remaining import duration_key
from comfy_worker.workflow.graph import Workflow

__all__ = ["NodeTime", "NodeTimes", "steps_of"]

# The newest run counts more than all earlier ones together: the first one loaded the models.
NEWEST_SHARE = 0.75
MOST_WORKFLOWS = 400  # each under two names
# How long a node takes if nothing is known, by its class. The first that matches counts.
GUESSES_S: tuple[tuple[re.Pattern[str], float], ...] = (
    (re.compile(r"Save|Preview|ComfyWorkerOutput"), 0.1),
    (re.compile(r"Load"), 1.0),
    (re.compile(r"VAEDecode|VAEEncode"), 0.3),
    (re.compile(r"TextEncode|CLIP"), 0.15),
    (re.compile(r"Upscale|ControlNetPreprocessor|Detect"), 0.5),
)
OTHER_GUESS_S = 0.01
STEP_GUESS_S = 0.2
SAMPLER = re.compile(r"Sampler|Sampling|Ultimate|Detailer")


@dataclass(frozen=True)
class NodeTime:
    """How long a node runs, in seconds.

    Attributes:
        lead_s: before its first step; all of it for a node without steps.
        step_s: per step.
        steps: how many steps it had.
        tail_s: after its last step.
        is_known: whether it was measured.
    """

    lead_s: float
    step_s: float = 0.0
    steps: int = 0
    tail_s: float = 0.0
    is_known: bool = False

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.lead_s + self.step_s * self.steps + self.tail_s


class NodeTimes:
    """The times of all nodes. It may be shared by threads.

    Args:
        path: a file that keeps the times between runs of the worker; None for none. It may be
            missing, broken or impossible to write.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        # By the name of a workflow and node, and by class.
        self._of_nodes: OrderedDict[str, dict[str, NodeTime]] = OrderedDict()
        self._of_classes: dict[str, NodeTime] = {}
        if path is not None:
            self._load(path)

    def expected(self, workflow: Workflow) -> Callable[[str], NodeTime]:
        """Return a function that says how long a node of a workflow will run.

        Its argument is the node's id; its result has the steps that the node will have.
        """
        known: dict[str, NodeTime] = {}
        with self._lock:
            for key in _keys(workflow):
                known |= self._of_nodes.get(key, {})
            classes = dict(self._of_classes)

        def expected(node_id: str) -> NodeTime:
            class_type = workflow[node_id]["class_type"]
            time = known.get(node_id) or classes.get(class_type)
            steps = steps_of(workflow, node_id)
            if time is None:
                return _guess(class_type, steps)
            return replace(time, steps=steps or time.steps) if time.steps else time

        return expected

    def learn(self, workflow: Workflow, measured: dict[str, NodeTime]) -> None:
        """Take in the times of a run that has ended well.

        Args:
            workflow: what ran.
            measured: by node id; nodes that did not run are left out.
        """
        with self._lock:
            for key in _keys(workflow):
                nodes = self._of_nodes.setdefault(key, {})
                self._of_nodes.move_to_end(key)
                for node_id, time in measured.items():
                    nodes[node_id] = _mean(nodes.get(node_id), time)
            for node_id, time in measured.items():
                class_type = workflow[node_id]["class_type"]
                self._of_classes[class_type] = _mean(self._of_classes.get(class_type), time)
            while len(self._of_nodes) > MOST_WORKFLOWS:
                self._of_nodes.popitem(last=False)
            self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        workflows = {}
        for key, nodes in self._of_nodes.items():
            workflows[key] = {node_id: asdict(time) for node_id, time in nodes.items()}
        classes = {name: asdict(time) for name, time in self._of_classes.items()}
        part = self._path.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"workflows": workflows, "classes": classes}), "utf-8")
            part.replace(self._path)

    def _load(self, path: Path) -> None:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            saved = json.loads(path.read_text(encoding="utf-8"))
            classes = {name: NodeTime(**time) for name, time in saved["classes"].items()}
            workflows: OrderedDict[str, dict[str, NodeTime]] = OrderedDict()
            for key, nodes in saved["workflows"].items():
                workflows[key] = {node_id: NodeTime(**time) for node_id, time in nodes.items()}
            self._of_classes, self._of_nodes = classes, workflows


def _keys(workflow: Workflow) -> list[str]:
    """Name a workflow by its nodes, which all runs of one template share.

    The second name, if there is one, is also by the values that decide how long it takes, such as
    the model and the size. It counts more.
    """
    classes = sorted((node_id, node["class_type"]) for node_id, node in workflow.items())
    key = hashlib.sha256(json.dumps(classes).encode()).hexdigest()
    return [name[:16] for name in (key, duration_key(workflow)) if name]


def steps_of(workflow: Workflow, node_id: str) -> int:
    """Return how many steps a sampler will have; 0 for other nodes, or if it cannot be told."""
    node = workflow[node_id]
    if not SAMPLER.search(node["class_type"]):
        return 0
    # A sampler may get its steps from a scheduler, but not from another sampler before it.
    level, seen = [node_id], {node_id}
    while level:
        above: list[str] = []
        for candidate in level:
            inputs = workflow[candidate]["inputs"]
            steps = inputs.get("steps")
            if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0:
                return _within(inputs, steps)
            above += [source for source in _sources(workflow, candidate) if source not in seen]
            seen.update(above)
        level = above
    return 0


def _sources(workflow: Workflow, node_id: str) -> Iterator[str]:
    """Yield the nodes that a node takes inputs from, except samplers."""
    for value in workflow[node_id]["inputs"].values():
        source = value[0] if isinstance(value, list) and value else None
        if not isinstance(source, str) or source not in workflow:
            continue
        if not SAMPLER.search(workflow[source]["class_type"]):
            yield source


def _within(inputs: dict[str, object], steps: int) -> int:
    """The steps from `start_at_step` to `end_at_step`."""
    start, end = inputs.get("start_at_step", 0), inputs.get("end_at_step", steps)
    if not isinstance(start, int) or not isinstance(end, int):
        return steps
    return max(1, min(end, steps) - max(start, 0))


def _guess(class_type: str, steps: int) -> NodeTime:
    if steps:
        return NodeTime(STEP_GUESS_S, STEP_GUESS_S, steps)
    for pattern, seconds in GUESSES_S:
        if pattern.search(class_type):
            return NodeTime(seconds)
    return NodeTime(OTHER_GUESS_S)


def _mean(before: NodeTime | None, newest: NodeTime) -> NodeTime:
    if before is None:
        return replace(newest, is_known=True)
    old = 1.0 - NEWEST_SHARE
    return NodeTime(
        old * before.lead_s + NEWEST_SHARE * newest.lead_s,
        old * before.step_s + NEWEST_SHARE * newest.step_s,
        newest.steps,
        old * before.tail_s + NEWEST_SHARE * newest.tail_s,
        is_known=True,
    )
