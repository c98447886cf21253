"""Reads the graphs of a UI-format file: the outermost one, and the definitions of its subgraphs.

A definition is read once, however many hosts it has. :mod:`~comfy_worker.workflow.convert.flatten`
finds the nodes that run.
"""

from __future__ import annotations

from functools import cached_property

from comfy_worker.errors import InvalidWorkflow, brief
from comfy_worker.workflow.convert.frontend_classes import BROADCASTERS, PRIMITIVE, SETTERS
from comfy_worker.workflow.convert.promoted import (
    HostValues,
    Promotion,
    WidgetSource,
    read_host_values,
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
    link_id_of,
    link_of,
    type_of,
    well_formed,
)
from comfy_worker.workflow.convert.work_limit import WorkLimit

__all__ = ["BYPASSED", "MUTED", "Definition", "Subgraphs", "value_name"]

MUTED, BYPASSED = 2, 4


class Definition:
    """One graph of the file.

    Attributes:
        name: a short form of the subgraph's name.
        source: the graph with lists where lists belong.
        nodes: by id.
        links: by id; those that Use Everywhere makes are not among them.
        ends: by slot of the subgraph's output, the link that leads to it.
        primitives: the ids of the PrimitiveNodes.
        setters: by class and value name, the id of the first node that sets it.
    """

    def __init__(self, source: Json) -> None:
        self.source = well_formed(source)
        self.name = brief(source.get("name"))
        self.nodes = {id_of(node): node for node in self.source["nodes"]}
        self.links: dict[str, LinkLine] = {}
        # By id, the links that cannot be read.
        self._unreadable: set[str] = set()
        self._broadcasts: dict[tuple[str, int], LinkLine] = {}
        self.ends: dict[int, LinkLine] = {}
        self._read_links()
        self.primitives: set[str] = set()
        self.setters: dict[tuple[str, str], str] = {}
        for node_id, node in self.nodes.items():
            if node["type"] == PRIMITIVE:
                self.primitives.add(node_id)
            elif node["type"] in SETTERS and (name := value_name(node)):
                self.setters.setdefault((node["type"], name), node_id)

    def _read_links(self) -> None:
        for entry in as_list(self.source["extra"].get("ue_links")):
            broadcast = broadcast_of(entry)
            if broadcast is not None:
                self._broadcasts[broadcast.target, broadcast.target_slot] = broadcast
        for entry in self.source["links"]:
            link = link_of(entry)
            if link is not None:
                self.links[link.link_id] = link
            else:
                self._unreadable.add(link_id_of(entry))
        # A drawn link counts before one of Use Everywhere.
        for link in (*self._broadcasts.values(), *self.links.values()):
            if link.target == OUTPUT_NODE:
                self.ends[link.target_slot] = link

    def link_to(self, node_id: str, slot: int) -> LinkLine | None:
        """Return the link that leads to an input, else that of Use Everywhere.

        A drawn link from a muted or bypassed node counts only where Use Everywhere sends nothing.
        """
        entry = entry_at(self.nodes[node_id]["inputs"], slot)
        link_id = as_text(entry.get("link"))
        drawn = self.links.get(link_id)
        if drawn is None and link_id and link_id in self._unreadable:
            raise InvalidWorkflow(
                f"workflow has a link that cannot be read, {brief(link_id)}; a link is "
                "[id, from node, from slot, to node, to slot, type] with numbers for the slots",
                [{"node_id": node_id, "link_id": brief(link_id)}],
            )
        broadcast = self._broadcasts.get((node_id, slot))
        if drawn is None or (broadcast is not None and not self._is_live(drawn.origin)):
            return broadcast
        return drawn

    @cached_property
    def links_from_inputs(self) -> list[list[LinkLine]]:
        """The links from the subgraph's inputs, by slot, in the order of ``linkIds``."""
        by_slot: list[list[LinkLine]] = [[] for _ in self.source["inputs"]]
        for link in self.links.values():
            if link.origin == INPUT_NODE and 0 <= link.origin_slot < len(by_slot):
                by_slot[link.origin_slot].append(link)
        for entry, links in zip(self.source["inputs"], by_slot, strict=True):
            order: dict[str, int] = {}
            for link_id in as_list(entry.get("linkIds")):
                order.setdefault(as_text(link_id), len(order))
            ranks = [order.get(link.link_id, len(order)) for link in links]
            links[:] = [links[index] for index in sorted(range(len(links)), key=ranks.__getitem__)]
        return by_slot

    def _is_live(self, node_id: str) -> bool:
        if node_id == INPUT_NODE:
            return True
        return node_id in self.nodes and self.nodes[node_id].get("mode") not in (MUTED, BYPASSED)

    @cached_property
    def lost_broadcasts(self) -> dict[str, Json]:
        """The nodes of Use Everywhere by the type that they send, if the file lacks their links."""
        found: dict[str, Json] = {}
        if self._broadcasts:
            return found
        for node_id, node in self.nodes.items():
            if node["type"] not in BROADCASTERS or not self._is_live(node_id):
                continue
            for slot, entry in enumerate(node["inputs"]):
                link = self.link_to(node_id, slot)
                if link is not None:
                    outputs = (
                        self.nodes[link.origin]["outputs"] if link.origin in self.nodes else []
                    )
                    output = entry_at(outputs, link.origin_slot)
                    found.setdefault(type_of(output or entry), node)
        return found


class Subgraphs:
    """The definitions of a file's subgraphs by id, each read when it is first needed."""

    def __init__(self, file: Json, work: WorkLimit) -> None:
        listed = dicts(as_dict(file.get("definitions")).get("subgraphs"))
        self._sources = {as_text(source.get("id")): source for source in listed}
        self._read: dict[str, Definition] = {}
        self._promotions: dict[str, list[Promotion]] = {}
        # By the identity of the host, which the file holds as long as this lives.
        self._host_values: dict[int, HostValues] = {}
        self._work = work

    def __contains__(self, class_type: str) -> bool:
        return class_type in self._sources

    def __getitem__(self, class_type: str) -> Definition:
        if class_type not in self._read:
            source = self._sources[class_type]
            self._work.count_steps(
                len(as_list(source.get("nodes"))) + len(as_list(source.get("links")))
            )
            self._read[class_type] = Definition(source)
        return self._read[class_type]

    def promotions(self, class_type: str, depth: int = 0) -> list[Promotion]:
        """List the inputs of a subgraph that have a widget on the host, in their order."""
        if class_type not in self._promotions:
            self._promotions[class_type] = []  # a subgraph within itself promotes nothing
            definition = self[class_type]
            found = []
            for slot, entry in enumerate(definition.source["inputs"]):
                name = as_text(entry.get("name"))
                for link in definition.links_from_inputs[slot]:
                    promotion = self._promotion(definition, name, link, depth)
                    if promotion is not None:
                        found.append(promotion)
                        break
            self._promotions[class_type] = found
        return self._promotions[class_type]

    def host_values(self, host: Json) -> HostValues:
        """Return the values of a host, read once however often the host runs."""
        if id(host) not in self._host_values:
            promotions = self.promotions(host["type"])
            primitives = self[host["type"]].primitives
            self._host_values[id(host)] = read_host_values(host, promotions, primitives)
        return self._host_values[id(host)]

    def _promotion(
        self, definition: Definition, name: str, link: LinkLine, depth: int
    ) -> Promotion | None:
        """Return the promotion by a link from an input; None if the link leads to no widget."""
        target = definition.nodes.get(link.target)
        if target is None or depth > MAX_DEPTH:
            return None
        entry = entry_at(target["inputs"], link.target_slot)
        input_name = as_text(entry.get("name"))
        if target["type"] not in self:
            widget = entry.get("widget")
            if not widget:
                return None
            widget_name = as_text(as_dict(widget).get("name") or input_name)
            return Promotion(name, link.target, widget_name, WidgetSource(target, widget_name))
        inner = self.promotions(target["type"], depth + 1)
        self._work.count_steps(len(inner))
        for promotion in inner:
            if promotion.name == input_name:
                value = self.host_values(target).by_input.get(input_name)
                if value is None:
                    value = promotion.inner_value
                return Promotion(name, link.target, input_name, promotion.source, value)
        return None


def value_name(node: Json) -> str | None:
    """Return the name of the value that a Set or Get node sets or gets; None if it is empty."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        values = list(values.values())
    first = next(iter(as_list(values)), None)
    return None if first in (None, "") else as_text(first)
