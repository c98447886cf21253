"""An API-format workflow: its nodes, its links, walks along them.

A workflow is ``{node_id: {"class_type", "inputs", "_meta"?}}``. An input is a literal, or a link
``[node_id, slot]`` to another node's output. Functions here never change a workflow that
they get; :class:`WorkflowEditor` changes its own copy.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from comfy_worker.errors import InvalidWorkflow, brief

__all__ = [
    "Check",
    "Fold",
    "Input",
    "Link",
    "ModelFile",
    "Workflow",
    "WorkflowEditor",
    "ancestors",
    "as_link",
    "consumers",
    "copied",
    "links_of",
    "never_ends",
    "number",
    "parse",
    "title_of",
    "walk",
]

S = TypeVar("S", bound=Hashable)
V = TypeVar("V")

Check = Callable[[], None]
"""Raises where the job must end: it was cancelled, or its time is over."""

STEPS_PER_CHECK = 256

# Longer texts are no numbers that a node takes.
MAX_DIGITS = 40

Workflow = dict[str, dict[str, Any]]

DECIMAL = re.compile(r"[0-9]{1,18}")
MAX_NODES = 5000
MAX_INPUTS = 5000  # of one node
MAX_NESTING = 50
# Stands for a slot that no output can have, such as 0.5.
NO_SLOT = -(2**63)


@dataclass(frozen=True)
class ModelFile:
    """A model file that a workflow needs, and where to get it.

    Attributes:
        folder: ``checkpoints``, ``loras`` ...
        file: its name there.
        url: where it comes from; None where nobody says.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    folder: str
    file: str
    url: str | None = None


class Link(NamedTuple):
    """A link to an output: ``[node_id, slot]`` in a workflow."""

    node_id: str
    slot: int


class Input(NamedTuple):
    """One input of one node, written ``node_id.name``."""

    node_id: str
    name: str

    def __str__(self) -> str:
        return f"{self.node_id}.{self.name}"


def as_link(value: Any) -> Link | None:
    """The link that an input's value is, or None for a literal.

    ComfyUI decides by the same rule (``is_link`` in its ``graph_utils.py``), which accepts a
    boolean or a fraction as a slot too. A node behind such a link runs, so it must be checked like
    any other.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2:
        node_id, slot = value
        if isinstance(node_id, str) and isinstance(slot, (int, float)):
            is_whole = math.isfinite(slot) and slot == int(slot)
            return Link(node_id, int(slot) if is_whole else NO_SLOT)
    return None


def links_of(node: Mapping[str, Any]) -> dict[str, Link]:
    """The linked inputs of a node by name, in their order."""
    found = {name: as_link(value) for name, value in node["inputs"].items()}
    return {name: link for name, link in found.items() if link is not None}


def number(value: Any) -> int | float | None:
    """The number that a value is or that is written in it; None where it is neither."""
    if isinstance(value, str):
        value = _parsed(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _parsed(text: str) -> int | float | None:
    if len(text) > MAX_DIGITS:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def title_of(workflow: Workflow, node_id: str) -> str:
    """The node's title in the editor; its class where it has none."""
    node = workflow[node_id]
    return str((node.get("_meta") or {}).get("title") or node["class_type"])


def consumers(workflow: Workflow) -> dict[Link, list[Input]]:
    """By output, the inputs that are linked to it, in the order of the workflow."""
    found: dict[Link, list[Input]] = {}
    for node_id, node in workflow.items():
        for name, link in links_of(node).items():
            found.setdefault(link, []).append(Input(node_id, name))
    return found


def copied(workflow: Workflow) -> Workflow:
    """Copy a workflow so that its inputs can be set. The values are shared, not copied."""
    return {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in workflow.items()}


def never_ends() -> None:
    """The check of work that cannot be ended early."""


def walk(
    starts: Iterable[S],
    following: Callable[[S], Iterable[S]],
    check: Check = never_ends,
    seen: set[S] | None = None,
) -> Iterator[S]:
    """Yield every state that the starts lead to, each once: start by start, the nearest first.

    Args:
        starts: where to begin.
        following: the states that one state leads to.
        check: called from time to time; may raise to end a long walk.
        seen: the states of earlier walks, which are skipped; new states are added.
    """
    seen = set() if seen is None else seen
    row: deque[S] = deque()
    for start in starts:
        if start not in seen:
            seen.add(start)
            row.append(start)
        while row:
            if len(seen) % STEPS_PER_CHECK == 0:
                check()
            state = row.popleft()
            yield state
            for other in following(state):
                if other not in seen:
                    seen.add(other)
                    row.append(other)


class Fold(Generic[S, V]):
    """A value for a state, made of the values of the states above it; each is computed once.

    Walks from every node would take time with the square of the graph's size; with values that
    are kept, all of them together take linear time. The stack is a list, because recursion would
    end at Python's limit.

    Args:
        above: the states that a state depends on. A circle is cut where it closes.
        combine: makes the value of a state out of those of the states above it, in their order.
        check: asked again and again, so that long work can be ended.
    """

    def __init__(
        self,
        above: Callable[[S], Iterable[S]],
        combine: Callable[[S, list[V]], V],
        check: Check = never_ends,
    ) -> None:
        self._above = above
        self._combine = combine
        self._check = check
        self._values: dict[S, V] = {}

    def __call__(self, start: S) -> V:
        """The value of a state."""
        values = self._values
        opened: dict[S, tuple[S, ...]] = {}
        stack = [start]
        while stack:
            state = stack[-1]
            if state in values:
                stack.pop()
            elif state not in opened:
                if len(opened) % STEPS_PER_CHECK == 0:
                    self._check()
                opened[state] = tuple(self._above(state))
                stack += [
                    item
                    for item in reversed(opened[state])
                    if item not in values and item not in opened
                ]
            else:
                stack.pop()
                values[state] = self._combine(
                    state, [values[item] for item in opened[state] if item in values]
                )
        return values[start]


def ancestors(workflow: Workflow, *node_ids: str, check: Check = never_ends) -> Iterator[str]:
    """Every node upstream of some nodes, nearest first, each once; they themselves are left out.

    Dangling links and circles are walked past.
    """
    own = set(node_ids)

    def above(node_id: str) -> Iterator[str]:
        for link in links_of(workflow[node_id]).values():
            if link.node_id in workflow:
                yield link.node_id

    return (node_id for node_id in walk(node_ids, above, check) if node_id not in own)


def parse(value: Any) -> Workflow:
    """Check that a value has the form of an API-format workflow.

    Args:
        value: what a client sent, JSON already read.

    Returns:
        A copy of its own; of a node what ComfyUI reads: ``inputs``, ``class_type`` and ``_meta``.

    Raises:
        InvalidWorkflow: it is no object, is empty or too large, a node lacks ``class_type`` or has
            no ``inputs`` of the right form, or an input holds what JSON cannot.
    """
    if not isinstance(value, dict) or not value:
        raise InvalidWorkflow(
            "workflow must be the name of a template, or a workflow that ComfyUI saved or exported "
            "(Workflow > Export (API))"
        )
    if len(value) > MAX_NODES:
        raise InvalidWorkflow(f"workflow has {len(value)} nodes; send at most {MAX_NODES}")
    details = []
    for node_id, node in value.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            details.append({"node_id": node_id, "problem": "class_type is missing"})
        elif not all(
            isinstance(node.get(part), (dict, type(None))) for part in ("inputs", "_meta")
        ):
            details.append({"node_id": node_id, "problem": "inputs or _meta is no object"})
        elif not _is_plain({part: node.get(part) for part in ("inputs", "_meta")}):
            details.append(
                {"node_id": node_id, "problem": "it holds NaN or Infinity, or is nested too deep"}
            )
    if details:
        first = details[0]
        raise InvalidWorkflow(
            f"workflow is not in API format: {first['problem']} (node {first['node_id']}); "
            "in ComfyUI save it, or use Workflow > Export (API)",
            details,
        )
    workflow = {node_id: _kept(node) for node_id, node in value.items()}
    _check_input_counts(workflow)
    return workflow


def _check_input_counts(workflow: Workflow) -> None:
    for node_id, node in workflow.items():
        count = len(node["inputs"])
        if count > MAX_INPUTS:
            shown = brief(node_id)
            raise InvalidWorkflow(
                f"node {shown} has {count} inputs; send at most {MAX_INPUTS}",
                [{"node_id": shown, "problem": f"it has more than {MAX_INPUTS} inputs"}],
            )


def _kept(node: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in node.items() if key in ("inputs", "class_type", "_meta")}
    return {**kept, "inputs": dict(kept.get("inputs") or {})}


def _is_plain(value: Any) -> bool:
    """Whether a value can be sent as JSON: not nested too deep, and without NaN or Infinity."""
    row = [value]
    for _ in range(MAX_NESTING):
        if not row:
            break
        if any(isinstance(item, float) and not math.isfinite(item) for item in row):
            return False
        inner = [
            item.values() if isinstance(item, dict) else item
            for item in row
            if isinstance(item, (dict, list))
        ]
        row = [each for item in inner for each in item]
    return not row


class WorkflowEditor:
    """A copy of a workflow and the few edits that a splice is made of.

    Args:
        workflow: stays as it is.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = copied(workflow)
        # A dangling link must not find what it looks for among the nodes to come.
        taken = {
            *workflow,
            *(link.node_id for node in workflow.values() for link in links_of(node).values()),
        }
        self._last_id = max(
            (int(node_id) for node_id in taken if DECIMAL.fullmatch(node_id)), default=0
        )

    def add(self, class_type: str, title: str, **inputs: Any) -> str:
        """Add a node under a fresh id; links among the inputs are given as :class:`Link`.

        Returns:
            The new node's id.
        """
        self._last_id += 1
        node_id = str(self._last_id)
        self.workflow[node_id] = {
            "class_type": class_type,
            "inputs": {name: list(v) if isinstance(v, Link) else v for name, v in inputs.items()},
            "_meta": {"title": title},
        }
        return node_id

    def set(self, place: Input, value: Any) -> None:
        """Set one input to a value, or link it if the value is a :class:`Link`."""
        inputs = self.workflow[place.node_id]["inputs"]
        inputs[place.name] = list(value) if isinstance(value, Link) else value

    def rewire(self, targets: Mapping[Link, Link], where: Callable[[Input], bool]) -> None:
        """Link those consumers of some outputs for which ``where`` holds to other outputs."""
        readers = consumers(self.workflow)
        for source, target in targets.items():
            for place in readers.get(source, ()):
                if where(place):
                    self.set(place, target)
