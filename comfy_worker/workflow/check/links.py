"""Checks the links of a workflow by the rule of ComfyUI's executor.

ComfyUI has two definitions of a link. Its validation reads declared inputs only and takes every
list for a link. Its executor reads every input, declared or not, and takes what ``is_link`` takes.
Between the two, validation unwraps ``{"__value__": ...}``, so a literal may become a link after it
was checked. A link that the executor cannot resolve ends its prompt thread. Therefore each input is
checked here before a prompt is queued.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import brief
from comfy_worker.workflow.check.problems import outputs_remedy
from comfy_worker.workflow.graph import Input, Workflow, as_link, links_of
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = [
    "LinkFault",
    "LinkWalk",
    "is_wrapped",
    "link_faults",
    "unwrapped",
    "with_plain_links",
    "without_idle",
]

WRAPPER = "__value__"


@dataclass(frozen=True)
class LinkFault:
    """A fault of one link.

    Attributes:
        input: the input that holds the link.
        type: ``hidden_link``, ``dangling_link``, ``bad_output_slot`` or ``cycle``.
        problem: what is wrong, as a clause without a full stop.
        would_do: how to fix it.
    """

    input: Input
    type: str
    problem: str
    would_do: str


def is_wrapped(value: Any) -> bool:
    """Return whether ComfyUI unwraps a value before it runs the node."""
    return isinstance(value, dict) and WRAPPER in value


def unwrapped(value: Any) -> Any:
    """Return the value that a node receives, without its wrappers."""
    while is_wrapped(value):
        value = value[WRAPPER]
    return value


def with_plain_links(workflow: Workflow) -> Workflow:
    """Write each link as ``[text, integer]`` if its meaning is clear.

    A number as an id means the node with that number as its text id, and ``false`` means slot 0, as
    in ComfyUI. Everything else stays as it is.

    Args:
        workflow: is not changed.
    """
    plain = dict(workflow)
    for node_id, node in workflow.items():
        changed = {}
        for name, value in node["inputs"].items():
            link = _plain_link(workflow, value)
            if link is not None:
                changed[name] = link
        if changed:
            plain[node_id] = {**node, "inputs": {**node["inputs"], **changed}}
    return plain


def _plain_link(workflow: Workflow, value: Any) -> list[Any] | None:
    """Return the plain form of a link; None if nothing has to change."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    node_id, slot = value
    is_number = isinstance(node_id, int) and not isinstance(node_id, bool)
    if is_number and str(node_id) in workflow and isinstance(slot, int):
        return [str(node_id), int(slot)]
    if isinstance(node_id, str) and isinstance(slot, bool):
        return [node_id, int(slot)]
    return None


class LinkWalk:
    """Finds the nodes that the outputs need, and circles, along every link that ComfyUI follows.

    Args:
        workflow: API format.
        defs: the node classes of this ComfyUI.

    Attributes:
        live: the nodes that an output needs, in the order of the workflow.
        circles: the inputs whose links close a circle.
    """

    def __init__(self, workflow: Workflow, defs: NodeDefs) -> None:
        self._workflow = workflow
        self._done: set[str] = set()
        self.circles: set[Input] = set()
        for node_id, node in workflow.items():
            declared = defs.get(node["class_type"])
            if declared is not None and declared.is_output:
                self._walk_from(node_id)
        self.live = dict.fromkeys(node_id for node_id in workflow if node_id in self._done)

    def _walk_from(self, output: str) -> None:
        """Walk up from a node, depth first."""
        if output in self._done:
            return
        # The nodes between the output and the current node, with the links still to follow.
        path = {output: self._links(output)}
        while path:
            node_id = next(reversed(path))
            link = next(path[node_id], None)
            if link is None:
                self._done.add(node_id)
                del path[node_id]
                continue
            name, above = link
            if above in path:
                self.circles.add(Input(node_id, name))
            elif above not in self._done:
                path[above] = self._links(above)

    def _links(self, node_id: str) -> Iterator[tuple[str, str]]:
        for name, link in links_of(self._workflow[node_id]).items():
            if link.node_id in self._workflow:
                yield name, link.node_id


def link_faults(
    workflow: Workflow, defs: NodeDefs, walk: LinkWalk | None = None
) -> Iterator[LinkFault]:
    """Yield the faults of the links that ComfyUI would follow.

    A node that no output needs is not queued, so only its hidden links are reported.

    Args:
        workflow: as it would be queued.
        defs: the node classes of this ComfyUI.
        walk: of the same workflow, if the caller has one.
    """
    walk = walk or LinkWalk(workflow, defs)
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            node_input = Input(node_id, name)
            if is_wrapped(value) and as_link(unwrapped(value)) is not None:
                yield _hidden(node_input)
            elif node_id in walk.live:
                fault = _fault_of(workflow, defs, walk, node_input, value)
                if fault is not None:
                    yield fault


def _fault_of(
    workflow: Workflow, defs: NodeDefs, walk: LinkWalk, node_input: Input, value: Any
) -> LinkFault | None:
    link = as_link(value)
    if link is None:
        return None
    shown = brief(node_input.name)
    if link.node_id not in workflow:
        problem = f"{shown} is linked to node {brief(repr(link.node_id))}, which is not there"
        remedy = "link it to a node of this graph, or leave it out"
        return LinkFault(node_input, "dangling_link", problem, remedy)
    if node_input in walk.circles:
        problem = f"{shown} closes a circle of links"
        return LinkFault(node_input, "cycle", problem, "cut one of them")
    source = defs.get(workflow[link.node_id]["class_type"])
    if source is None:
        return None  # the missing class is a finding of its own
    count, slot = len(source.outputs), value[1]
    # ComfyUI counts a negative slot from the end, as Python does.
    if isinstance(slot, int) and -count <= slot < count:
        return None
    output = f"output {brief(repr(slot))} of node {brief(link.node_id)}"
    problem = f"{shown} is linked to {output}, which it lacks"
    remedy = outputs_remedy(source.name, source.outputs)
    return LinkFault(node_input, "bad_output_slot", problem, remedy)


def _hidden(node_input: Input) -> LinkFault:
    problem = f"{brief(node_input.name)} hides a link in {{'{WRAPPER}': ...}}"
    return LinkFault(node_input, "hidden_link", problem, "write the link itself, [node_id, slot]")


def without_idle(workflow: Workflow, defs: NodeDefs) -> Workflow:
    """Remove the nodes that no output needs.

    ComfyUI does not run them, but it asks each of them whether its files have changed, and a broken
    link of such a node ends the prompt thread.

    Args:
        workflow: is not changed.
        defs: the node classes of this ComfyUI.
    """
    live = LinkWalk(workflow, defs).live
    return {node_id: node for node_id, node in workflow.items() if node_id in live}
