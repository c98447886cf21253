"""Numbers the nodes of subgraphs as ComfyUI's frontend does when it opens a file.

A copy of a subgraph may hold the same node ids as the original. The frontend gives the later nodes
new ids and exports those. Clients use the ids of the export (in ``overrides``, for example).
"""

from __future__ import annotations

from typing import Any

from comfy_worker.workflow.convert.ui_format import Json, as_dict, as_list, as_text, dicts

__all__ = ["with_unique_ids"]

LARGEST_NODE_ID = 100_000_000


def with_unique_ids(file: Json) -> Json:
    """Give nodes of subgraphs new ids if an id is taken.

    Args:
        file: a workflow in UI format; is not changed.

    Returns:
        The same file if no id is taken twice, else a copy with new ids.
    """
    definitions = as_dict(file.get("definitions"))
    subgraphs = dicts(definitions.get("subgraphs"))
    if not subgraphs:
        return file
    ids = _Ids(file)
    renamed: dict[str, dict[str, int]] = {}
    for subgraph in subgraphs:
        new_ids = ids.take_all(dicts(subgraph.get("nodes")))
        if new_ids:
            renamed[as_text(subgraph.get("id"))] = new_ids
    if not renamed:
        return file
    changed = [_renumbered(subgraph, renamed) for subgraph in subgraphs]
    nodes = [_with_promotions(node, renamed) for node in dicts(file.get("nodes"))]
    return {**file, "nodes": nodes, "definitions": {**definitions, "subgraphs": changed}}


class _Ids:
    """The ids that are taken, and the next free one."""

    def __init__(self, file: Json) -> None:
        self._taken = {as_text(node.get("id")) for node in dicts(file.get("nodes"))}
        last = as_dict(file.get("state")).get("lastNodeId", file.get("last_node_id"))
        self._last = last if isinstance(last, int) and last < LARGEST_NODE_ID else 0

    def take_all(self, nodes: list[Json]) -> dict[str, int]:
        """Take the ids of a subgraph's nodes.

        Returns:
            By id, the new one of each node whose id was taken.
        """
        new_ids: dict[str, int] = {}
        for node in nodes:
            node_id = as_text(node.get("id"))
            if node_id in self._taken:
                new_ids[node_id] = self._next_free()
                continue
            self._taken.add(node_id)
            if node_id.isdecimal() and len(node_id) < len(str(LARGEST_NODE_ID)):
                self._last = max(self._last, int(node_id))
        return new_ids

    def _next_free(self) -> int:
        self._last += 1
        while str(self._last) in self._taken:
            self._last += 1
        self._taken.add(str(self._last))
        return self._last


def _renumbered(subgraph: Json, renamed: dict[str, dict[str, int]]) -> Json:
    """Put new ids into a definition: its nodes, its links, the ``proxyWidgets`` of its hosts."""
    new_ids = renamed.get(as_text(subgraph.get("id")), {})
    nodes = []
    for node in dicts(subgraph.get("nodes")):
        node_id = as_text(node.get("id"))
        if node_id in new_ids:
            node = {**node, "id": new_ids[node_id]}
        nodes.append(_with_promotions(node, renamed))
    links = [_with_new_ends(link, new_ids) for link in as_list(subgraph.get("links"))]
    return {**subgraph, "nodes": nodes, "links": links}


def _with_new_ends(link: Any, new_ids: dict[str, int]) -> Any:
    """Return a link between nodes that may have new ids."""
    if isinstance(link, dict):
        ends = {key: link.get(key) for key in ("origin_id", "target_id")}
        changed = {
            key: new_ids[as_text(end)] for key, end in ends.items() if as_text(end) in new_ids
        }
        return {**link, **changed}
    if isinstance(link, list) and len(link) >= 5:
        origin, target = (new_ids.get(as_text(end), end) for end in (link[1], link[3]))
        return [link[0], origin, link[2], target, *link[4:]]
    return link


def _with_promotions(node: Json, renamed: dict[str, dict[str, int]]) -> Json:
    """Return a node whose ``proxyWidgets`` name the new ids of the subgraph that it stands for."""
    new_ids = renamed.get(as_text(node.get("type")))
    properties = as_dict(node.get("properties"))
    listed = properties.get("proxyWidgets")
    if new_ids is None or not isinstance(listed, list):
        return node
    changed = []
    for entry in listed:
        if isinstance(entry, list) and entry and as_text(entry[0]) in new_ids:
            entry = [str(new_ids[as_text(entry[0])]), *entry[1:]]
        changed.append(entry)
    return {**node, "properties": {**properties, "proxyWidgets": changed}}
