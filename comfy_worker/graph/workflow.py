"""An API-format workflow: its nodes, its links, walks up and down.

A workflow is ``{node_id: {"class_type", "inputs", "_meta"?}}``. An input is a literal, or a link
``[node_id, slot]`` to another node's output. Functions here never change a workflow that they were given, but
for the ones of :class:`Editor`, which works on a copy of its own.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from comfy_worker.errors import InvalidWorkflow

__all__ = [
    "Editor",
    "Input",
    "Link",
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
    """The link that an input's value is, or None for a literal."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        node_id, slot = value
        if isinstance(node_id, str) and isinstance(slot, int) and not isinstance(slot, bool):
            return Link(node_id, slot)
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
        A copy of its own, keys as strings.

    Raises:
        InvalidWorkflow: it is no object, is empty, or a node lacks ``class_type`` or ``inputs``.
    """
    if not isinstance(value, dict) or not value:
        raise InvalidWorkflow(
            "workflow must be a template's name or a graph in API format, an object of nodes by id; "
            "in ComfyUI use Workflow > Export (API)"
        )
    details = []
    for node_id, node in value.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            details.append({"node_id": node_id, "problem": "class_type is missing"})
        elif not all(isinstance(node.get(part), (dict, type(None))) for part in ("inputs", "_meta")):
            details.append({"node_id": node_id, "problem": "inputs or _meta is no object"})
    if details:
        ids = ", ".join(str(detail["node_id"]) for detail in details[:5])
        raise InvalidWorkflow(
            f"workflow is no graph in API format: node {ids} has no class_type, or its inputs are no object; "
            "in ComfyUI use Workflow > Export (API)",
            details,
        )
    workflow = copy.deepcopy(value)
    for node in workflow.values():
        node["inputs"] = node.get("inputs") or {}
    return workflow


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
