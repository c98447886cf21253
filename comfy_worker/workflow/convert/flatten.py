"""A workflow in the editor's own format, flattened: its nodes that run, and what feeds each of their inputs.

Owns how subgraphs, reroutes, primitives, muted and bypassed nodes and notes are read: as ComfyUI's own frontend
does when it exports (1.32.9, ``executionUtil.ts`` and ``ExecutableNodeDTO.ts``). Knows no node class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.ui_format import (
    INPUT_NODE,
    MAX_DEPTH,
    OUTPUT_NODE,
    Json,
    as_dict,
    as_list,
    dicts,
    entry_at,
    id_of,
    link_of,
    passed_on,
    shown_outside,
    well_formed,
)
from comfy_worker.workflow.graph import MAX_NODES, Link

__all__ = ["FlatNode", "Value", "flatten"]

MUTED, BYPASSED = 2, 4
VIRTUAL = frozenset({"Note", "MarkdownNote", "PrimitiveNode", "Reroute", "GetNode", "SetNode"})


class Value(NamedTuple):
    """A literal that comes from another node: a primitive, or the outside of a subgraph.

    ``is_outside`` tells the second; its ``value`` is None where nothing was set there: the node's own holds.
    """

    value: Any
    is_outside: bool = False


@dataclass(frozen=True)
class FlatNode:
    """One node that ComfyUI would get.

    Attributes:
        node_id: ``5``, or ``2:5`` for node 5 of the subgraph that node 2 stands for.
        node: the node as it stands in the file.
        fed: by input name, what feeds it, a muted node among it; inputs that nothing feeds are left out.
    """

    node_id: str
    node: Json
    fed: dict[str, Link | Value] = field(default_factory=dict)


def flatten(file: Json) -> list[FlatNode]:
    """Flatten a file.

    Args:
        file: JSON already read, of which :func:`~comfy_worker.workflow.convert.ui_format.is_editor_file` holds.

    Returns:
        The nodes that run in the order of the file, those of a subgraph where its node stands.

    Raises:
        InvalidWorkflow: a subgraph contains itself, links go in a circle, or there are too many nodes.
    """
    subgraphs = [well_formed(entry) for entry in dicts(as_dict(file.get("definitions")).get("subgraphs"))]
    known: dict[_Step, _Source] = {}
    flat = []
    everything = _Graph(well_formed(file), {str(entry.get("id")): entry for entry in subgraphs}).nodes_within()
    for count, (graph, node) in enumerate(everything):
        if count == MAX_NODES:
            raise InvalidWorkflow(f"workflow has more than {MAX_NODES} nodes, those of its subgraphs counted")
        if node.get("type") in VIRTUAL or node.get("mode") in (MUTED, BYPASSED) or graph.is_host(node):
            continue
        one = FlatNode(graph.prefix + id_of(node), node)
        for slot, entry in enumerate(node["inputs"]):
            fed = _feeder(_Step(graph, id_of(node), slot), known)
            # A literal goes where there is a widget to hold it.
            if isinstance(fed, Link) or (fed is not None and entry.get("widget")):
                one.fed[str(entry.get("name"))] = fed
        flat.append(one)
    return flat


class _Step(NamedTuple):
    """A place on the way up from an input: an input of a node, or an output.

    ``kind`` is the type that is wanted in the end; where it is None, the type of the input itself. ``is_direct``
    tells that no node has passed anything on so far.
    """

    graph: _Graph
    node_id: str
    slot: int
    kind: str | None = None
    is_output: bool = False
    is_direct: bool = True


_Source = Link | Value | None


def _feeder(start: _Step, known: dict[_Step, _Source]) -> _Source:
    """What feeds an input in the end: up link by link, in and out of subgraphs, through what only passes on."""
    way: dict[_Step, None] = {}
    step: _Step | _Source = start
    while isinstance(step, _Step) and step not in known:
        if step in way:
            raise InvalidWorkflow(
                f"links go in a circle at node {step.graph.prefix}{step.node_id}; cut one of them",
                [{"node_id": step.graph.prefix + step.node_id, "problem": "its links go in a circle"}],
            )
        way[step] = None
        step = step.graph.above_output(step) if step.is_output else step.graph.above_input(step)
    found = known[step] if isinstance(step, _Step) else step
    known.update(dict.fromkeys(way, found))
    return found


class _Graph:
    """One graph of a file: its outermost, or a subgraph as one node outside of it (its host) stands for it."""

    def __init__(
        self, source: Json, subgraphs: Mapping[str, Json], outer: _Graph | None = None, host: Json | None = None
    ) -> None:
        self._source = source
        self._subgraphs = subgraphs
        self._outer, self._host = outer, host
        self._depth: int = 0 if outer is None else outer._depth + 1
        self.prefix: str = "" if outer is None or host is None else f"{outer.prefix}{id_of(host)}:"
        self._nodes = {id_of(node): node for node in source["nodes"]}
        links = [link for entry in source["links"] if (link := link_of(entry))]
        self._links = {link.link_id: link for link in links}
        self._ends = {link.target_slot: link for link in links if link.target == OUTPUT_NODE}
        self._setters = {
            repr(node.get("widgets_values")): key
            for key, node in self._nodes.items()
            if node.get("type") == "SetNode"
        }
        self._inner: dict[str, _Graph] = {}

    def is_host(self, node: Json) -> bool:
        """Whether a node stands for a subgraph."""
        return node.get("type") in self._subgraphs

    def nodes_within(self) -> Iterator[tuple[_Graph, Json]]:
        """Every node here, and in the subgraphs below that run."""
        for node in self._nodes.values():
            yield self, node
            if self.is_host(node) and node.get("mode") not in (MUTED, BYPASSED):
                yield from self._within(node).nodes_within()

    def above_input(self, step: _Step) -> _Step | _Source:
        """What an input is linked to."""
        entry = entry_at(self._nodes[step.node_id]["inputs"], step.slot)
        link = self._links.get(str(entry.get("link")))
        if link is None:
            return None
        if link.origin == INPUT_NODE:
            return self._outside(link.origin_slot, step)
        kind = str(entry.get("type")) if step.kind is None else step.kind
        return _Step(self, link.origin, link.origin_slot, kind, is_output=True, is_direct=step.is_direct)

    def above_output(self, step: _Step) -> _Step | _Source:
        """What an output stands for: itself, or what its node only passes on."""
        node = self._nodes.get(step.node_id, {})
        kind = node.get("type")
        if kind == "PrimitiveNode":
            # The frontend sets widgets to it that are linked to it straight, and from the outermost graph only.
            values = as_list(node.get("widgets_values")) if step.is_direct and self._outer is None else ()
            return Value(values[0]) if values else None
        if node.get("mode") == BYPASSED:
            slot = passed_on(node, step.slot, step.kind or "")
            return None if slot is None else _Step(self, step.node_id, slot, is_direct=False)
        if kind == "Reroute":
            return _Step(self, step.node_id, 0, step.kind, is_direct=False)
        if kind == "GetNode":
            setter = self._setters.get(repr(node.get("widgets_values")))
            return None if setter is None else _Step(self, setter, 0, step.kind, is_direct=False)
        if not kind or kind in VIRTUAL:
            return None
        if self.is_host(node) and node.get("mode") != MUTED:
            inner = self._within(node)
            link = inner._ends.get(step.slot)
            if link is None:
                return None
            if link.origin == INPUT_NODE:
                return inner._outside(link.origin_slot, step._replace(is_direct=False))
            return _Step(inner, link.origin, link.origin_slot, step.kind, is_output=True)
        return Link(self.prefix + step.node_id, step.slot)

    def _outside(self, slot: int, step: _Step) -> _Step | _Source:
        """What feeds an input of this subgraph from outside, else the value that its host holds for it."""
        if self._outer is None or self._host is None:
            return None
        name = entry_at(self._source["inputs"], slot).get("name")
        for index, entry in enumerate(self._host["inputs"]):
            if entry.get("name") == name and str(entry.get("link")) in self._outer._links:
                return _Step(self._outer, id_of(self._host), index, is_direct=step.is_direct)
        return Value(self._host_values.get(str(name)), is_outside=True)

    @cached_property
    def _host_values(self) -> dict[str, Any]:
        """The values of the widgets that a subgraph shows on its host, by the name of its input."""
        from comfy_cli.cql import promoted

        host = self._host or {}
        # Where the host lists what it shows, its values stand in that order; ``-1`` tells an input of its own.
        listed = [entry for entry in as_list(host["properties"].get("proxyWidgets")) if isinstance(entry, list)]
        if any(entry[:1] == ["-1"] for entry in listed):
            pairs = zip(listed, as_list(host.get("widgets_values")), strict=False)
            return {str(entry[-1]): value for entry, value in pairs if entry[:1] == ["-1"]}
        shown = shown_outside(self._source, self._subgraphs, {})
        inputs = [promoted.PromotedInput(name, "", index, index) for index, name in enumerate(shown)]
        values = {one.name: promoted.host_value(host, one) for one in inputs}
        return {name: value for name, value in values.items() if value is not promoted.UNSET}

    def _within(self, host: Json) -> _Graph:
        """The subgraph that a node stands for."""
        key = id_of(host)
        if key not in self._inner:
            definition = self._subgraphs[host["type"]]
            where = [{"node_id": self.prefix + key, "title": host.get("title") or definition.get("name")}]
            above: _Graph | None = self
            while above is not None:
                if above._source is definition:
                    raise InvalidWorkflow(
                        f"subgraph '{definition.get('name')}' contains itself; take node {self.prefix}{key} out",
                        where,
                    )
                above = above._outer
            if self._depth >= MAX_DEPTH:
                raise InvalidWorkflow(
                    f"subgraphs are nested more than {MAX_DEPTH} deep; unpack some of them", where
                )
            self._inner[key] = _Graph(definition, self._subgraphs, self, host)
        return self._inner[key]
