"""Flattens a UI-format workflow: finds the nodes that run, and what feeds their inputs.

Subgraphs, reroutes, primitives, Set and Get nodes, links of Use Everywhere, muted and bypassed
nodes and notes are resolved as ComfyUI's frontend resolves them in an export (1.49.6,
``executionUtil.ts`` and ``ExecutableNodeDTO.ts``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
    nesting_of,
    passed_on,
    type_of,
)
from comfy_worker.workflow.convert.unique_ids import with_unique_ids
from comfy_worker.workflow.convert.work_limit import WorkLimit
from comfy_worker.workflow.graph import Link
from comfy_worker.workflow.parse import MAX_NESTING, MAX_NODES

__all__ = ["FlatNode", "Value", "flatten"]

# Values may be nested as deep as in an API-format graph; the file adds its own lists and objects.
MAX_FILE_NESTING = MAX_NESTING + 10


class Value(NamedTuple):
    """A literal that comes from another node: a primitive, or the host of a subgraph.

    Attributes:
        value: None where the host has no value.
        is_outside: whether the literal comes from the host of a subgraph.
        source: the widget that gives the value where the host has none; None for the input's own.
    """

    value: Any
    is_outside: bool = False
    source: WidgetSource | None = None


@dataclass(frozen=True)
class FlatNode:
    """One node of the export.

    Attributes:
        node_id: ``5``, or ``2:5`` for node 5 in the subgraph of host 2.
        node: the node in the file; hosts of the same subgraph share it.
        fed: what feeds an input, by name; inputs that nothing feeds are left out.
    """

    node_id: str
    node: Json
    fed: dict[str, Link | Value] = field(default_factory=dict)


def flatten(file: Json, work: WorkLimit, *, unique_ids: bool = True) -> list[FlatNode]:
    """Flatten a file.

    Args:
        file: a workflow in UI format.
        work: limits the work, and notices where the job must end.
        unique_ids: whether nodes of subgraphs get new ids where an id is taken. Frontends that do
            so ignore a primitive that feeds a subgraph from outside.

    Returns:
        The nodes that run, in the order of the file; nodes of a subgraph in place of its host.

    Raises:
        InvalidWorkflow: a subgraph contains itself, links form a circle, or the file is too large.
    """
    if nesting_of(file) > MAX_FILE_NESTING:
        raise InvalidWorkflow(
            f"workflow holds lists and objects that are nested more than {MAX_FILE_NESTING} deep; "
            "save it again in ComfyUI"
        )
    if unique_ids:
        file = with_unique_ids(file)
    outermost = _Graph(Definition(file), Subgraphs(file, work))
    outermost.primitives_enter = not unique_ids
    links = _LinkResolver(work)
    flat = []
    for count, (graph, node) in enumerate(outermost.nodes_within()):
        if count == MAX_NODES:
            raise InvalidWorkflow(
                f"workflow has more than {MAX_NODES} nodes, including those in its subgraphs"
            )
        work.count_steps(1 + len(node["inputs"]))
        if graph.runs(node):
            flat.append(_flat_node(graph, node, links))
    return flat


def _flat_node(graph: _Graph, node: Json, links: _LinkResolver) -> FlatNode:
    """One node with what feeds its inputs."""
    flat_node = FlatNode(graph.prefix + id_of(node), node)
    for slot, entry in enumerate(node["inputs"]):
        source = links.source_of(graph, node, slot)
        name = as_text(entry.get("name"))
        if source is None:
            if not entry.get("widget"):
                graph.refuse_lost_broadcast(flat_node.node_id, entry)
        elif isinstance(source, Link) or source.is_outside or entry.get("widget"):
            # A primitive sets widgets only; a host's value goes to sockets too.
            flat_node.fed[name] = _without_itself(source, node, name)
    for name, value in graph.values_for(id_of(node)).items():
        flat_node.fed.setdefault(name, Value(value, is_outside=True))
    return flat_node


def _without_itself(source: Link | Value, node: Json, name: str) -> Link | Value:
    """What feeds an input, without a source that is the input's own widget."""
    if isinstance(source, Link) or source.source is None:
        return source
    is_own = source.source.node is node and source.source.name == name
    return source._replace(source=None) if is_own else source


class _Step(NamedTuple):
    """A stop on the way up from an input: an input or an output of a node.

    Attributes:
        is_output: whether ``slot`` is an output of the node.
        is_direct: whether a primitive counts here: the way has led through no reroute or bypassed
            node so far, and for newer frontends out of no subgraph.
        renews_type: whether the type to look for is from now on the type of this input.
    """

    graph: _Graph
    node_id: str
    slot: int
    is_output: bool = False
    is_direct: bool = True
    renews_type: bool = False


class _Bypass(NamedTuple):
    """An output of a bypassed node. The type to look for decides which input it passes on."""

    graph: _Graph
    node_id: str
    slot: int


_Source = Link | Value | None


class _Reached(NamedTuple):
    """The end of a way, and the type to look for there; None for the type at its start."""

    end: _Bypass | _Source
    wanted_type: str | None = None


class _LinkResolver:
    """Finds what finally feeds an input.

    Goes up link by link, into and out of subgraphs, through nodes that only pass values on. Results
    are kept, so that the work does not grow with the number of ways over a stop: up to a bypassed
    node there is one result for each stop, and beyond it one for each type.
    """

    def __init__(self, work: WorkLimit) -> None:
        self._work = work
        self._reached: dict[_Step, _Reached] = {}
        self._behind: dict[tuple[_Bypass, str], _Source] = {}

    def source_of(self, graph: _Graph, node: Json, slot: int) -> _Source:
        """Find what feeds an input of a node.

        Raises:
            InvalidWorkflow: the links form a circle, or there are too many.
        """
        wanted_type = type_of(node["inputs"][slot])
        step = _Step(graph, id_of(node), slot)
        passed: dict[tuple[_Bypass, str], None] = {}
        while True:
            reached = self._walk(step)
            wanted_type = reached.wanted_type or wanted_type
            if not isinstance(reached.end, _Bypass):
                source = reached.end
                break
            bypass = (reached.end, wanted_type)
            if bypass in self._behind:
                source = self._behind[bypass]
                break
            if bypass in passed:
                raise _circle(reached.end)
            passed[bypass] = None
            above = self._through(*bypass)
            if above is None:
                source = None
                break
            step = above
        self._behind.update(dict.fromkeys(passed, source))
        return source

    def _walk(self, start: _Step) -> _Reached:
        """Go up to a bypassed node, or to the end."""
        way: dict[_Step, str | None] = {}
        step: _Step | _Bypass | _Source = start
        while isinstance(step, _Step) and step not in self._reached:
            if step in way:
                raise _circle(step)
            self._work.count_steps()
            way[step] = step.graph.type_at(step) if step.renews_type else None
            step = step.graph.above_output(step) if step.is_output else step.graph.above_input(step)
        reached = self._reached[step] if isinstance(step, _Step) else _Reached(step)
        for passed, renewed_type in reversed(way.items()):
            if reached.wanted_type is None and renewed_type is not None:
                reached = _Reached(reached.end, renewed_type)
            self._reached[passed] = reached
        return reached

    def _through(self, bypass: _Bypass, wanted_type: str) -> _Step | None:
        """The input that a bypassed node passes on."""
        node = bypass.graph.node(bypass.node_id)
        self._work.count_steps(1 + len(node["inputs"]))
        slot = passed_on(node, bypass.slot, wanted_type)
        return None if slot is None else _Step(bypass.graph, bypass.node_id, slot, is_direct=False)


def _circle(step: _Step | _Bypass) -> InvalidWorkflow:
    node_id = step.graph.prefix + step.node_id
    return InvalidWorkflow(
        f"the links form a circle at node {node_id}; remove one of them",
        [{"node_id": node_id, "problem": "its links form a circle"}],
    )


class _Graph:
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
        outer: _Graph | None = None,
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
        self._inner: dict[str, _Graph] = {}

    def runs(self, node: Json) -> bool:
        """Whether a node is part of the export."""
        is_off = node.get("mode") in (MUTED, BYPASSED)
        return not (is_off or node["type"] in VIRTUAL or self.is_host(node))

    def is_host(self, node: Json) -> bool:
        """Whether a node stands for a subgraph."""
        return node["type"] in self._subgraphs

    def node(self, node_id: str) -> Json:
        """The node with an id that exists."""
        node: Json = self._definition.nodes[node_id]
        return node

    def nodes_within(self) -> Iterator[tuple[_Graph, Json]]:
        """Yield every node of this graph and of the subgraphs in it that run."""
        for node in self._definition.nodes.values():
            yield self, node
            if self.is_host(node) and node.get("mode") not in (MUTED, BYPASSED):
                yield from self._within(node).nodes_within()

    def type_at(self, step: _Step) -> str:
        """The type of an input."""
        return type_of(entry_at(self.node(step.node_id)["inputs"], step.slot))

    def above_input(self, step: _Step) -> _Step | _Source:
        """What an input is linked to."""
        link = self._definition.link_to(step.node_id, step.slot)
        if link is None:
            return None
        if link.origin == INPUT_NODE:
            return self._outside(link.origin_slot, is_direct=step.is_direct)
        return _Step(self, link.origin, link.origin_slot, is_output=True, is_direct=step.is_direct)

    def above_output(self, step: _Step) -> _Step | _Bypass | _Source:
        """Where an output gets its value: from its node, or from above if the node passes it on."""
        node = self._definition.nodes.get(step.node_id, {})
        class_type = node.get("type")
        if class_type == PRIMITIVE:
            return self._primitive_value(node) if step.is_direct else None
        if node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED:
            return _Bypass(self, step.node_id, step.slot)
        if class_type in PASS_ON:
            return _Step(self, step.node_id, 0, is_direct=False)
        if class_type in GETTERS:
            return self._setter_input(GETTERS[class_type], value_name(node))
        if not class_type or class_type in VIRTUAL:
            return None
        if self.is_host(node):
            return self._within(node)._above_end(step.slot)
        return Link(self.prefix + step.node_id, step.slot)

    def _above_end(self, slot: int) -> _Step | _Source:
        """What an output of this subgraph is linked to inside."""
        link = self._definition.ends.get(slot)
        if link is None:
            return None
        if link.origin == INPUT_NODE:
            return self._outside(link.origin_slot, is_direct=False)
        return _Step(self, link.origin, link.origin_slot, is_output=True)

    def _primitive_value(self, node: Json) -> Value | None:
        """The value of a primitive, which the frontend writes into the widgets linked to it."""
        values = as_list(node.get("widgets_values"))
        value = self.values_for(id_of(node)).get(PRIMITIVE_WIDGET, values[0] if values else None)
        return None if value is None else Value(value)

    def values_for(self, node_id: str) -> dict[str, Any]:
        """By name, the host's values for widgets of an inner node that no input leads to."""
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
            f"node {sender_id} ({sender['type']}, of the pack {BROADCAST_PACK}) feeds inputs such as "
            f"{name} of node {node_id} without links, and the file lacks extra.ue_links, which says "
            f"which; open it in a ComfyUI with {BROADCAST_PACK} and save it again, or use "
            "Workflow > Export (API)",
            [
                {
                    "node_id": sender_id,
                    "pack": BROADCAST_PACK,
                    "problem": "its links are not in the file",
                }
            ],
        )

    def _setter_input(self, setter_class: str, name: str | None) -> _Step | None:
        """The input of the node that sets a named value, in this graph or the nearest around it."""
        graph: _Graph | None = self
        while graph is not None and name:
            setter_id = graph._definition.setters.get((setter_class, name))
            if setter_id is not None:
                return _Step(graph, setter_id, 0, is_direct=False)
            graph = graph._outer
        return None

    def _outside(self, slot: int, *, is_direct: bool) -> _Step | _Source:
        """What feeds an input of this subgraph from outside; without a link, the host's value."""
        if self._outer is None or self._host is None:
            return None
        name = as_text(entry_at(self._definition.source["inputs"], slot).get("name"))
        index = self._host_slots.get(name)
        if index is not None:
            is_direct = is_direct and self.primitives_enter
            return _Step(
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
        """What this subgraph promotes, by the input's name."""
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

    def _within(self, host: Json) -> _Graph:
        """The subgraph of a host.

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
                    f"subgraph '{definition.name}' contains itself; take node {self.prefix}{host_id} out",
                    details,
                )
            if self._depth >= MAX_DEPTH:
                problem = f"subgraphs are nested more than {MAX_DEPTH} deep; unpack some of them"
                raise InvalidWorkflow(problem, details)
            self._inner[host_id] = _Graph(definition, self._subgraphs, self, host)
        return self._inner[host_id]

    def _is_within(self, definition: Definition) -> bool:
        """Whether this graph, or one around it, has a definition."""
        graph: _Graph | None = self
        while graph is not None:
            if graph._definition is definition:
                return True
            graph = graph._outer
        return False
