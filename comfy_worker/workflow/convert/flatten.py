"""Flattens a UI-format workflow: which nodes run, and what feeds each of their inputs.

Subgraphs, reroutes, primitives, Set and Get nodes, links of Use Everywhere, muted and bypassed nodes
and notes are resolved as ComfyUI's frontend does when it exports (1.32.9, ``executionUtil.ts`` and
``ExecutableNodeDTO.ts``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from comfy_worker.errors import InvalidWorkflow, brief
from comfy_worker.workflow.convert.frontend_classes import (
    BROADCAST_PACK,
    BROADCASTERS,
    GETTERS,
    PASS_ON,
    PRIMITIVE,
    SETTERS,
    VIRTUAL,
)
from comfy_worker.workflow.convert.ui_format import (
    INPUT_NODE,
    MAX_DEPTH,
    OUTPUT_NODE,
    Json,
    LinkLine,
    as_dict,
    as_list,
    as_text,
    broadcast_of,
    dicts,
    entry_at,
    id_of,
    link_of,
    nesting_of,
    passed_on,
    type_of,
    well_formed,
)
from comfy_worker.workflow.convert.work_limit import WorkLimit
from comfy_worker.workflow.graph import MAX_NESTING, MAX_NODES, Link

__all__ = ["FlatNode", "Value", "flatten"]

MUTED, BYPASSED = 2, 4
# Of a whole file: its values, and the lists and objects around them.
MAX_FILE_NESTING = MAX_NESTING + 10


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
        node: the node as it stands in the file; the nodes of one subgraph share it.
        fed: by input name, what feeds it, a muted node among it; inputs that nothing feeds are left out.
    """

    node_id: str
    node: Json
    fed: dict[str, Link | Value] = field(default_factory=dict)


def flatten(file: Json, work: WorkLimit) -> list[FlatNode]:
    """Flatten a file.

    Args:
        file: JSON that :func:`~comfy_worker.workflow.convert.ui_format.is_editor_file` takes for a file.
        work: bounds the work, and hears where the job must end.

    Returns:
        The nodes that run in the order of the file, those of a subgraph where its node stands.

    Raises:
        InvalidWorkflow: a subgraph contains itself, links go in a circle, or the workflow is too large.
    """
    if nesting_of(file) > MAX_FILE_NESTING:
        raise InvalidWorkflow(
            f"workflow holds lists and objects that are nested more than {MAX_FILE_NESTING} deep; "
            "save it again in ComfyUI"
        )
    links = _LinkResolver(work)
    flat = []
    for count, (graph, node) in enumerate(_Graph(_Definition(file), _Subgraphs(file, work)).nodes_within()):
        if count == MAX_NODES:
            raise InvalidWorkflow(f"workflow has more than {MAX_NODES} nodes, those of its subgraphs counted")
        work.count_steps(1 + len(node["inputs"]))
        if node["type"] in VIRTUAL or node.get("mode") in (MUTED, BYPASSED) or graph.is_host(node):
            continue
        flat_node = FlatNode(graph.prefix + id_of(node), node)
        for slot, entry in enumerate(node["inputs"]):
            source = links.source_of(graph, node, slot)
            # A literal goes where there is a widget to hold it.
            if isinstance(source, Link) or (source is not None and entry.get("widget")):
                flat_node.fed[as_text(entry.get("name"))] = source
            elif source is None and not entry.get("widget"):
                graph.refuse_lost_broadcast(flat_node.node_id, entry)
        flat.append(flat_node)
    return flat


class _Step(NamedTuple):
    """A stop on the way up from an input: an input of a node, or an output.

    Attributes:
        is_output: whether ``slot`` is one of the node's outputs.
        is_direct: whether no node has passed anything on so far.
        renews_type: whether the type that is wanted is that of this input, no longer that of the first.
    """

    graph: _Graph
    node_id: str
    slot: int
    is_output: bool = False
    is_direct: bool = True
    renews_type: bool = False


class _Bypass(NamedTuple):
    """An output of a bypassed node: which input it stands for depends on the type that is wanted."""

    graph: _Graph
    node_id: str
    slot: int


_Source = Link | Value | None


class _Reached(NamedTuple):
    """Where a way ends, and the type that is wanted there; None: the one that was wanted at its start."""

    end: _Bypass | _Source
    wanted_type: str | None = None


class _LinkResolver:
    """Finds what feeds an input in the end.

    Goes up link by link, in and out of subgraphs, through what only passes on. Each stop is looked at
    once, however many ways lead over it: without the type that is wanted as far as a bypassed node, and
    from there once for each type.
    """

    def __init__(self, work: WorkLimit) -> None:
        self._work = work
        self._reached: dict[_Step, _Reached] = {}
        self._behind: dict[tuple[_Bypass, str], _Source] = {}

    def source_of(self, graph: _Graph, node: Json, slot: int) -> _Source:
        """What feeds an input of a node.

        Raises:
            InvalidWorkflow: the links go in a circle, or there are too many.
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
        """Go up as far as a bypassed node, or to the end."""
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
        f"links go in a circle at node {node_id}; cut one of them",
        [{"node_id": node_id, "problem": "its links go in a circle"}],
    )


class _Definition:
    """One graph as it stands in the file, read once however often nodes stand for it."""

    def __init__(self, source: Json) -> None:
        self.source = well_formed(source)
        self.name = brief(source.get("name"))
        self.nodes = {id_of(node): node for node in self.source["nodes"]}
        links = [link for entry in self.source["links"] if (link := link_of(entry))]
        self.links = {link.link_id: link for link in links}
        sent = [link for entry in as_list(self.source["extra"].get("ue_links")) if (link := broadcast_of(entry))]
        self._broadcasts = {(link.target, link.target_slot): link for link in sent}
        self.ends = {link.target_slot: link for link in (*sent, *links) if link.target == OUTPUT_NODE}
        self.setters: dict[tuple[str, str], str] = {}
        for node_id, node in self.nodes.items():
            if node["type"] in SETTERS and (name := _constant(node)):
                self.setters.setdefault((node["type"], name), node_id)

    def link_to(self, node_id: str, slot: int) -> LinkLine | None:
        """The link that leads to an input; one of Use Everywhere where the editor drew none that is live."""
        entry = entry_at(self.nodes[node_id]["inputs"], slot)
        drawn = self.links.get(as_text(entry.get("link")))
        broadcast = self._broadcasts.get((node_id, slot))
        if drawn is None or (broadcast is not None and not self._is_live(drawn.origin)):
            return broadcast
        return drawn

    def _is_live(self, node_id: str) -> bool:
        if node_id == INPUT_NODE:
            return True
        return node_id in self.nodes and self.nodes[node_id].get("mode") not in (MUTED, BYPASSED)

    @cached_property
    def lost_broadcasts(self) -> dict[str, Json]:
        """The types that nodes of Use Everywhere send where the file does not say to which inputs."""
        found: dict[str, Json] = {}
        if self._broadcasts:
            return found
        for node_id, node in self.nodes.items():
            if node["type"] in BROADCASTERS and self._is_live(node_id):
                for slot, entry in enumerate(node["inputs"]):
                    if (link := self.link_to(node_id, slot)) is not None:
                        origin = self.nodes.get(link.origin, {"outputs": ()})
                        output = entry_at(list(origin["outputs"]), link.origin_slot)
                        found.setdefault(type_of(output or entry), node)
        return found


class _Subgraphs:
    """The subgraphs of a file by their id, each read when it is first needed."""

    def __init__(self, file: Json, work: WorkLimit) -> None:
        listed = dicts(as_dict(file.get("definitions")).get("subgraphs"))
        self._sources = {as_text(source.get("id")): source for source in listed}
        self._read: dict[str, _Definition] = {}
        self._shown: dict[str, list[str]] = {}
        self._work = work

    def __contains__(self, class_type: str) -> bool:
        return class_type in self._sources

    def __getitem__(self, class_type: str) -> _Definition:
        if class_type not in self._read:
            source = self._sources[class_type]
            self._work.count_steps(len(as_list(source.get("nodes"))) + len(as_list(source.get("links"))))
            self._read[class_type] = _Definition(source)
        return self._read[class_type]

    def shown_outside(self, class_type: str, depth: int = 0) -> list[str]:
        """The inputs of a subgraph that have a widget on its host, in their order."""
        if class_type not in self._shown:
            self._shown[class_type] = []  # within itself it shows nothing
            definition = self[class_type]
            slots = set()
            for link in definition.links.values():
                if link.origin == INPUT_NODE and link.target in definition.nodes and depth <= MAX_DEPTH:
                    target = definition.nodes[link.target]
                    entry = entry_at(target["inputs"], link.target_slot)
                    if self._has_widget(target, entry, depth):
                        slots.add(link.origin_slot)
            names = [as_text(entry.get("name")) for entry in definition.source["inputs"]]
            self._shown[class_type] = [name for slot, name in enumerate(names) if slot in slots]
        return self._shown[class_type]

    def _has_widget(self, target: Json, entry: Json, depth: int) -> bool:
        if target["type"] not in self:
            return bool(entry.get("widget"))
        shown = self.shown_outside(target["type"], depth + 1)
        self._work.count_steps(len(shown))
        return entry.get("name") in shown


class _Graph:
    """One graph that runs: the file's outermost, or a subgraph as one node outside of it stands for it.

    That node is its host.
    """

    def __init__(
        self,
        definition: _Definition,
        subgraphs: _Subgraphs,
        outer: _Graph | None = None,
        host: Json | None = None,
    ) -> None:
        self._definition = definition
        self._subgraphs = subgraphs
        self._outer, self._host = outer, host
        self._depth: int = 0
        self.prefix: str = ""
        if outer is not None and host is not None:
            self._depth = outer._depth + 1
            self.prefix = f"{outer.prefix}{id_of(host)}:"
        self._inner: dict[str, _Graph] = {}

    def is_host(self, node: Json) -> bool:
        """Whether a node stands for a subgraph."""
        return node["type"] in self._subgraphs

    def node(self, node_id: str) -> Json:
        """The node of an id, which must be there."""
        node: Json = self._definition.nodes[node_id]
        return node

    def nodes_within(self) -> Iterator[tuple[_Graph, Json]]:
        """Every node here, and in the subgraphs below that run."""
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
        """What an output stands for: itself, or what its node only passes on."""
        node = self._definition.nodes.get(step.node_id, {})
        class_type = node.get("type")
        if class_type == PRIMITIVE:
            # The frontend sets widgets to it that are linked to it straight, and from the outermost graph only.
            values = as_list(node.get("widgets_values")) if step.is_direct and self._outer is None else ()
            return Value(values[0]) if values else None
        if node.get("mode") == BYPASSED:
            return _Bypass(self, step.node_id, step.slot)
        if class_type in PASS_ON:
            return _Step(self, step.node_id, 0, is_direct=False)
        if class_type in GETTERS:
            return self._setter_input(GETTERS[class_type], _constant(node))
        if not class_type or class_type in VIRTUAL:
            return None
        if self.is_host(node) and node.get("mode") != MUTED:
            inner = self._within(node)
            link = inner._definition.ends.get(step.slot)
            if link is None:
                return None
            if link.origin == INPUT_NODE:
                return inner._outside(link.origin_slot, is_direct=False)
            return _Step(inner, link.origin, link.origin_slot, is_output=True)
        return Link(self.prefix + step.node_id, step.slot)

    def refuse_lost_broadcast(self, node_id: str, entry: Json) -> None:
        """Refuse an input that Use Everywhere would have fed, had the file kept its links.

        Raises:
            InvalidWorkflow: a node of Use Everywhere sends what this input takes.
        """
        sender = self._definition.lost_broadcasts.get(type_of(entry))
        if sender is None:
            return
        sender_id, name = self.prefix + id_of(sender), brief(entry.get("name"))
        raise InvalidWorkflow(
            f"node {sender_id} ({sender['type']}, of the pack {BROADCAST_PACK}) feeds inputs such as {name} of "
            f"node {node_id} without links, and the file lacks extra.ue_links, which says which; open it in a "
            f"ComfyUI with {BROADCAST_PACK} and save it again, or use Workflow > Export (API)",
            [{"node_id": sender_id, "pack": BROADCAST_PACK, "problem": "its links are not in the file"}],
        )

    def _setter_input(self, setter_class: str, name: str | None) -> _Step | None:
        """The input of the node that sets a named value, here or else in the graphs around."""
        graph: _Graph | None = self
        while graph is not None and name:
            setter_id = graph._definition.setters.get((setter_class, name))
            if setter_id is not None:
                return _Step(graph, setter_id, 0, is_direct=False)
            graph = graph._outer
        return None

    def _outside(self, slot: int, *, is_direct: bool) -> _Step | _Source:
        """What feeds an input of this subgraph from outside, else the value that its host holds for it."""
        if self._outer is None or self._host is None:
            return None
        name = entry_at(self._definition.source["inputs"], slot).get("name")
        index = self._host_slots.get(as_text(name))
        if index is not None:
            return _Step(self._outer, id_of(self._host), index, is_direct=is_direct, renews_type=True)
        return Value(self._host_values.get(as_text(name)), is_outside=True)

    @cached_property
    def _host_slots(self) -> dict[str, int]:
        """The linked inputs of the host by their name."""
        slots: dict[str, int] = {}
        if self._outer is not None and self._host is not None:
            for index, entry in enumerate(self._host["inputs"]):
                if self._outer._definition.link_to(id_of(self._host), index) is not None:
                    slots.setdefault(as_text(entry.get("name")), index)
        return slots

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
        shown = self._subgraphs.shown_outside(host["type"])
        inputs = [promoted.PromotedInput(name, "", index, index) for index, name in enumerate(shown)]
        values = {entry.name: promoted.host_value(host, entry) for entry in inputs}
        return {name: value for name, value in values.items() if value is not promoted.UNSET}

    def _within(self, host: Json) -> _Graph:
        """The subgraph that a node stands for."""
        host_id = id_of(host)
        if host_id not in self._inner:
            definition = self._subgraphs[host["type"]]
            details = [{"node_id": self.prefix + host_id, "title": brief(host.get("title") or definition.name)}]
            above: _Graph | None = self
            while above is not None:
                if above._definition is definition:
                    raise InvalidWorkflow(
                        f"subgraph '{definition.name}' contains itself; take node {self.prefix}{host_id} out",
                        details,
                    )
                above = above._outer
            if self._depth >= MAX_DEPTH:
                raise InvalidWorkflow(
                    f"subgraphs are nested more than {MAX_DEPTH} deep; unpack some of them", details
                )
            self._inner[host_id] = _Graph(definition, self._subgraphs, self, host)
        return self._inner[host_id]


def _constant(node: Json) -> str | None:
    """The name that a Set or Get node holds; None where it is empty."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        values = list(values.values())
    first = as_list(values)[:1]
    return as_text(first[0]) if first and first[0] not in (None, "") else None
