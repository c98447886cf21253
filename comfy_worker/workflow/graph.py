"""An API-format workflow: its nodes, its links, walks up and down.

A workflow is ``{node_id: {"class_type", "inputs", "_meta"?}}``. An input is a literal, or a link
``[node_id, slot]`` to another node's output. Functions here never change a workflow that they were given, but
for the ones of :class:`Editor`, which works on a copy of its own.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from comfy_worker.errors import InvalidWorkflow

__all__ = [
    "Editor",
    "Input",
    "Link",
    "Need",
    "Workflow",
    "ancestors",
    "as_link",
    "consumers",
    "links_of",
    "parse",
    "title_of",
]

Workflow = dict[str, dict[str, Any]]

DECIMAL = re.compile(r"[0-9]{1,18}")
MAX_NODES = 5000
MAX_NESTING = 50
# Stands for a slot that no output can have, such as 0.5.
NO_SLOT = -(2**63)


@dataclass(frozen=True)
class Need:
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

    ComfyUI decides by the same rule (``is_link`` in its ``graph_utils.py``), which takes a boolean or a fraction
    for a slot too. A node behind such a link runs, so it has to be looked at like any other.
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


def title_of(workflow: Workflow, node_id: str) -> str:
    """The node's title in the editor; its class where it has none."""
    node = workflow[node_id]
    return str((node.get("_meta") or {}).get("title") or node["class_type"])


def consumers(workflow: Workflow, source: Link) -> list[Input]:
    """The inputs that are linked to an output, in the order of the workflow."""
    return [
        Input(node_id, name)
        for node_id, node in workflow.items()
        for name, link in links_of(node).items()
        if link == source
    ]


def ancestors(workflow: Workflow, node_id: str) -> Iterator[str]:
    """Every node upstream of a node, nearest first, each once; dangling links and cycles are walked past."""
    seen = {node_id}
    row = [node_id]
    while row:
        above: list[str] = []
        for below in row:
            for link in links_of(workflow[below]).values():
                if link.node_id in workflow and link.node_id not in seen:
                    seen.add(link.node_id)
                    above.append(link.node_id)
        yield from above
        row = above


def parse(value: Any) -> Workflow:
    """Check that a value has the form of an API-format workflow.

    Args:
        value: what a client sent, JSON already read.

    Returns:
        A copy of its own; of a node what ComfyUI reads: ``inputs``, ``class_type`` and ``_meta``.

    Raises:
        InvalidWorkflow: it is no object, is empty or too large, a node lacks ``class_type`` or has no ``inputs``
            of the right form, or an input holds what JSON cannot.
    """
    if not isinstance(value, dict) or not value:
        raise InvalidWorkflow(
            "workflow must be a template's name or a graph, an object of nodes by id, as ComfyUI's menu saves it "
            "or exports it with Export (API)"
        )
    if len(value) > MAX_NODES:
        raise InvalidWorkflow(f"workflow has {len(value)} nodes; at most {MAX_NODES} are taken")
    details = []
    for node_id, node in value.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            details.append({"node_id": node_id, "problem": "class_type is missing"})
        elif not all(isinstance(node.get(part), (dict, type(None))) for part in ("inputs", "_meta")):
            details.append({"node_id": node_id, "problem": "inputs or _meta is no object"})
        elif not _is_plain({part: node.get(part) for part in ("inputs", "_meta")}):
            details.append({"node_id": node_id, "problem": "it holds NaN or Infinity, or is nested too deep"})
    if details:
        first = details[0]
        raise InvalidWorkflow(
            f"workflow is no graph in API format: {first['problem']} (node {first['node_id']}); "
            "in ComfyUI save it, or use Workflow > Export (API)",
            details,
        )
    return {node_id: _kept(node) for node_id, node in value.items()}


def _kept(node: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: copy.deepcopy(value) for key, value in node.items() if key in ("inputs", "class_type", "_meta")}
    return {**kept, "inputs": kept.get("inputs") or {}}


def _is_plain(value: Any) -> bool:
    """Whether a value can be sent as JSON: nested with measure, and no number that JSON has no word for."""
    row = [value]
    for _ in range(MAX_NESTING):
        if not row:
            break
        if any(isinstance(one, float) and not math.isfinite(one) for one in row):
            return False
        inner = [one.values() if isinstance(one, dict) else one for one in row if isinstance(one, (dict, list))]
        row = [each for one in inner for each in one]
    return not row


class Editor:
    """A copy of a workflow and the few edits that a splice is made of.

    Args:
        workflow: stays as it is.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = copy.deepcopy(workflow)
        # A dangling link must not find what it looks for among the nodes to come.
        taken = {*workflow, *(link.node_id for node in workflow.values() for link in links_of(node).values())}
        self._last_id = max((int(node_id) for node_id in taken if DECIMAL.fullmatch(node_id)), default=0)

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
        """Set one input; a :class:`Link` becomes a link."""
        inputs = self.workflow[place.node_id]["inputs"]
        inputs[place.name] = list(value) if isinstance(value, Link) else value

    def rewire(self, source: Link, target: Link, where: Callable[[Input], bool]) -> None:
        """Link to ``target`` those consumers of ``source`` for which ``where`` holds."""
        for place in consumers(self.workflow, source):
            if where(place):
                self.set(place, target)
