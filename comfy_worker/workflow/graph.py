"""An API-format workflow: its nodes, its inputs and its links.

A workflow is ``{node_id: {"class_type", "inputs", "_meta"?}}``. An input is a literal, or a link
``[node_id, slot]`` to another node's output. No function here changes a workflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from comfy_worker.workflow.walks import Check, never_ends, walk

__all__ = [
    "Input",
    "Link",
    "Workflow",
    "ancestors",
    "as_link",
    "consumers",
    "copied",
    "links_of",
    "number",
    "title_of",
]

Workflow = dict[str, dict[str, Any]]

# No node takes a longer text as a number.
MAX_DIGITS = 40
# Stands for a slot that no output can have, such as 0.5.
NO_SLOT = -(2**63)


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
    """Return the link that an input's value is, or None for a literal.

    ComfyUI decides by the same rule (``is_link`` in its ``graph_utils.py``), which accepts a
    boolean or a fraction as a slot too. A node behind such a link runs, so checks must follow it.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2:
        node_id, slot = value
        if isinstance(node_id, str) and isinstance(slot, (int, float)):
            is_whole = math.isfinite(slot) and slot == int(slot)
            return Link(node_id, int(slot) if is_whole else NO_SLOT)
    return None


def links_of(node: Mapping[str, Any]) -> dict[str, Link]:
    """Return the links of a node by input name, in the order of its inputs."""
    found = {}
    for name, value in node["inputs"].items():
        # Most inputs are literals, and the call costs more than this look.
        if isinstance(value, (list, tuple)) and (link := as_link(value)) is not None:
            found[name] = link
    return found


def number(value: Any) -> int | float | None:
    """Return the finite number that a value is, or that a text contains; else None."""
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
    """Return the node's title in the editor; its class if it has no title."""
    node = workflow[node_id]
    return str((node.get("_meta") or {}).get("title") or node["class_type"])


def consumers(workflow: Workflow) -> dict[Link, list[Input]]:
    """Return, for each output, the inputs that are linked to it, in the workflow's order."""
    found: dict[Link, list[Input]] = {}
    for node_id, node in workflow.items():
        for name, link in links_of(node).items():
            found.setdefault(link, []).append(Input(node_id, name))
    return found


def copied(workflow: Workflow) -> Workflow:
    """Return a copy whose inputs can be set.

    The copy shares the values of the inputs, so these must not be changed in place.
    """
    return {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in workflow.items()}


def ancestors(workflow: Workflow, *node_ids: str, check: Check = never_ends) -> Iterator[str]:
    """Yield every node upstream of some nodes, nearest first, each once.

    The nodes themselves are left out, and so are links to nodes that do not exist.
    """
    own = set(node_ids)

    def above(node_id: str) -> list[str]:
        links = links_of(workflow[node_id]).values()
        return [link.node_id for link in links if link.node_id in workflow]

    return (node_id for node_id in walk(node_ids, above, check) if node_id not in own)
