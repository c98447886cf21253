"""Finds what the inputs and outputs of an active graph are linked to.

An active graph is the outermost graph of a file, or the subgraph of one host. Two hosts of the same
subgraph are two active graphs with one definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from comfy_worker.errors import InvalidWorkflow, brief
from comfy_worker.workflow.convert.definitions import (
    BYPASSED,
    MUTED,
    Definition,
    Subgraphs,
    value_name,
)
from comfy_worker.workflow.convert.frontend_classes import (
    BROADCAST_PACK,
    GETTERS,
    PASS_ON,
    PRIMITIVE,
    VIRTUAL,
)
from comfy_worker.workflow.convert.promoted import (
    PRIMITIVE_WIDGET,
    HostValues,
    Promotion,
    WidgetSource,
)
from comfy_worker.workflow.convert.ui_format import (
    INPUT_NODE,
    MAX_DEPTH,
    Json,
    as_list,
    as_text,
    entry_at,
    id_of,
    type_of,
)
from comfy_worker.workflow.graph import Link

__all__ = ["ActiveGraph", "Bypass", "Source", "Step", "Value"]


class Value(NamedTuple):
    """A literal that comes from another node: a primitive, or the host of a subgraph.

    Attributes:
        value: None if the host has no value.
        is_outside: whether the literal comes from the host of a subgraph.
        source: the widget with the value if the host has none; None for the input's own widget.
    """

    value: Any
    is_outside: bool = False
    source: WidgetSource | None = None


class Step(NamedTuple):
    """A step on the way up from an input: an input or an output of a node.

    Attributes:
        is_output: whether ``slot`` is an output of the node.
        is_direct: whether a primitive counts here: there was no reroute and no bypassed node on the
            way so far, and for newer frontends the way has not left a subgraph.
        renews_type: whether the type to look for changes to the type of this input.
    """

    graph: ActiveGraph
    node_id: str
    slot: int
    is_output: bool = False
    is_direct: bool = True
    renews_type: bool = False


class Bypass(NamedTuple):
    """An output of a bypassed node. The type to look for decides which input it passes on."""

    graph: ActiveGraph
    node_id: str
    slot: int


Source = Link | Value | None
"""What finally feeds an input: a node's output, a literal, or nothing."""


class ActiveGraph:
    """One graph that runs: the outermost of the file, or the subgraph of one host.

    Args:
        definition: the graph in the file.
        subgraphs: the definitions of all subgraphs.
        outer: the graph around a subgraph.
        host: the node of ``outer`` that stands for this subgraph.
    """

    def __init__(
        self,
        definition: Definition,
        subgraphs: Subgraphs,
        outer: ActiveGraph | None = None,
        host: Json | None = None,
    ) -> None:
        self._definition = definition
        self._subgraphs = subgraphs
        self._outer, self._host = outer, host
        self._depth: int = 0
        self.prefix: str = ""
        # Whether a primitive outside of a subgraph feeds the widgets in it.
        self.primitives_enter: bool = True if outer is None else outer.primitives_enter
        if outer is not None and host is not None:
            self._depth = outer._depth + 1
            self.prefix = f"{outer.prefix}{id_of(host)}:"
        self._inner: dict[str, ActiveGraph] = {}

    def runs(self, node: Json) -> bool:
        """Return whether a node is part of the export."""
        is_off = node.get("mode") in (MUTED, BYPASSED)
        return not (is_off or node["type"] in VIRTUAL or self.is_host(node))

    def is_host(self, node: Json) -> bool:
        """Return whether a node stands for a subgraph."""
        return node["type"] in self._subgraphs

    def node(self, node_id: str) -> Json:
        """Return the node with an id that exists."""
        node: Json = self._definition.nodes[node_id]
        return node

    def nodes_within(self) -> Iterator[tuple[ActiveGraph, Json]]:
        """Yield every node of this graph and of the subgraphs in it that run."""
        for node in self._definition.nodes.values():
            yield self, node
            if self.is_host(node) and node.get("mode") not in (MUTED, BYPASSED):
                yield from self._within(node).nodes_within()

    def type_at(self, step: Step) -> str:
        """Return the type of an input."""
        return type_of(entry_at(self.node(step.node_id)["inputs"], step.slot))

    def above_input(self, step: Step) -> Step | Source:
        """Return what an input is linked to."""
        link = self._definition.link_to(step.node_id, step.slot)
        if link is None:
            return None
        if link.origin == INPUT_NODE:
            return self._outside(link.origin_slot, is_direct=step.is_direct)
        return Step(self, link.origin, link.origin_slot, is_output=True, is_direct=step.is_direct)

    def above_output(self, step: Step) -> Step | Bypass | Source:
        """Return where an output gets its value: from its node, or from a node above it."""
        node = self._definition.nodes.get(step.node_id, {})
        class_type = node.get("type")
        if class_type == PRIMITIVE:
            return self._primitive_value(node) if step.is_direct else None
        if node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED:
            return Bypass(self, step.node_id, step.slot)
        if class_type in PASS_ON:
            return Step(self, step.node_id, 0, is_direct=False)
        if class_type in GETTERS:
            return self._setter_input(GETTERS[class_type], value_name(node))
        if not class_type or class_type in VIRTUAL:
            return None
        if self.is_host(node):
            return self._within(node)._above_end(step.slot)
        return Link(self.prefix + step.node_id, step.slot)

    def _above_end(self, slot: int) -> Step | Source:
        """Return what an output of this subgraph is linked to inside."""
        link = self._definition.ends.get(slot)
        if link is None:
            return None
        if link.origin == INPUT_NODE:
            return self._outside(link.origin_slot, is_direct=False)
        return Step(self, link.origin, link.origin_slot, is_output=True)

    def _primitive_value(self, node: Json) -> Value | None:
        """Return the value of a primitive, which the frontend writes into linked widgets."""
        values = as_list(node.get("widgets_values"))
        value = self.values_for(id_of(node)).get(PRIMITIVE_WIDGET, values[0] if values else None)
        return None if value is None else Value(value)

    def values_for(self, node_id: str) -> dict[str, Any]:
        """Return the host's values for those widgets of an inner node that no input leads to."""
        return self._host_values.by_widget.get(node_id, {})

    def refuse_lost_broadcast(self, node_id: str, entry: Json) -> None:
        """Reject an input that Use Everywhere would feed if the file had kept its links.

        Raises:
            InvalidWorkflow: a node of Use Everywhere sends this input's type.
        """
        sender = self._definition.lost_broadcasts.get(type_of(entry))
        if sender is None:
            return
        sender_id, name = self.prefix + id_of(sender), brief(entry.get("name"))
        raise InvalidWorkflow(
            f"node {sender_id} ({sender['type']}, of the pack {BROADCAST_PACK}) feeds inputs such "
            f"as {name} of node {node_id} without links, and the file lacks extra.ue_links, which "
            f"says which; open it in a ComfyUI with {BROADCAST_PACK} and save it again, or use "
            "Workflow > Export (API)",
            [
                {
                    "node_id": sender_id,
                    "pack": BROADCAST_PACK,
                    "problem": "its links are not in the file",
                }
            ],
        )

    def _setter_input(self, setter_class: str, name: str | None) -> Step | None:
        """Return the input of the node that sets a named value, here or in a graph around this."""
        graph: ActiveGraph | None = self
        while graph is not None and name:
            setter_id = graph._definition.setters.get((setter_class, name))
            if setter_id is not None:
                return Step(graph, setter_id, 0, is_direct=False)
            graph = graph._outer
        return None

    def _outside(self, slot: int, *, is_direct: bool) -> Step | Source:
        """Return what feeds an input of this subgraph: a link to the host, or the host's value."""
        if self._outer is None or self._host is None:
            return None
        name = as_text(entry_at(self._definition.source["inputs"], slot).get("name"))
        index = self._host_slots.get(name)
        if index is not None:
            is_direct = is_direct and self.primitives_enter
            return Step(
                self._outer, id_of(self._host), index, is_direct=is_direct, renews_type=True
            )
        value = self._outer.values_for(id_of(self._host)).get(name)
        if value is None:
            value = self._host_values.by_input.get(name)
        promotion = self._promotions.get(name)
        if promotion is None:
            return Value(value, is_outside=True)
        if value is None:
            value = promotion.inner_value
        return Value(value, is_outside=True, source=promotion.source)

    @cached_property
    def _host_slots(self) -> dict[str, int]:
        """The slots of the host's linked inputs, by name."""
        slots: dict[str, int] = {}
        if self._outer is not None and self._host is not None:
            for index, entry in enumerate(self._host["inputs"]):
                if self._outer._definition.link_to(id_of(self._host), index) is not None:
                    slots.setdefault(as_text(entry.get("name")), index)
        return slots

    @cached_property
    def _promotions(self) -> dict[str, Promotion]:
        """The promotions of this subgraph, by the input's name."""
        if self._host is None:
            return {}
        return {
            promotion.name: promotion
            for promotion in self._subgraphs.promotions(self._host["type"])
        }

    @cached_property
    def _host_values(self) -> HostValues:
        """The values that the host of this subgraph holds."""
        if self._host is None:
            return HostValues()
        return self._subgraphs.host_values(self._host)

    def _within(self, host: Json) -> ActiveGraph:
        """Return the subgraph of a host.

        Raises:
            InvalidWorkflow: the subgraph contains itself, or is nested too deep.
        """
        host_id = id_of(host)
        if host_id not in self._inner:
            definition = self._subgraphs[host["type"]]
            title = brief(host.get("title") or definition.name)
            details = [{"node_id": self.prefix + host_id, "title": title}]
            if self._is_within(definition):
                raise InvalidWorkflow(
                    f"subgraph '{definition.name}' contains itself; take node "
                    f"{self.prefix}{host_id} out",
                    details,
                )
            if self._depth >= MAX_DEPTH:
                problem = f"subgraphs are nested more than {MAX_DEPTH} deep; unpack some of them"
                raise InvalidWorkflow(problem, details)
            self._inner[host_id] = ActiveGraph(definition, self._subgraphs, self, host)
        return self._inner[host_id]

    def _is_within(self, definition: Definition) -> bool:
        """Return whether this graph, or one around it, has a definition."""
        graph: ActiveGraph | None = self
        while graph is not None:
            if graph._definition is definition:
                return True
            graph = graph._outer
        return False
