"""A workflow in the editor's own format as it is written: its nodes, links and slots, well-formed or not.

Which node feeds which is found in :mod:`~comfy_worker.workflow.convert.flatten`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "INPUT_NODE",
    "MAX_DEPTH",
    "OUTPUT_NODE",
    "Json",
    "LinkLine",
    "as_dict",
    "as_list",
    "dicts",
    "entry_at",
    "id_of",
    "is_editor_file",
    "link_of",
    "passed_on",
    "shown_outside",
    "well_formed",
]

INPUT_NODE, OUTPUT_NODE = "-10", "-20"
ANY_TYPE = ("", "*", "0", "None")
# Classes that were renamed; the frontend does it as it opens a file.
RENAMED = {
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
    "T2IAdapterLoader": "ControlNetLoader",
}
MAX_DEPTH = 30

Json = dict[str, Any]


def is_editor_file(value: Any) -> bool:
    """Whether a value is a workflow as the editor's Save writes it, rather than an API-format one."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list) and "links" in value


def shown_outside(
    source: Json, subgraphs: Mapping[str, Json], known: dict[str, list[str]], depth: int = 0
) -> list[str]:
    """The inputs of a subgraph that have a widget on its host, in their order; each subgraph is looked at once."""
    key = str(source.get("id"))
    if key not in known:
        known[key] = []  # within itself it shows nothing
        nodes = {id_of(node): node for node in source["nodes"]}
        slots = set()
        for link in filter(None, map(link_of, source["links"])):
            if link.origin == INPUT_NODE and link.target in nodes and depth <= MAX_DEPTH:
                target = nodes[link.target]
                entry, inner = entry_at(target["inputs"], link.target_slot), subgraphs.get(target["type"])
                shown = shown_outside(inner, subgraphs, known, depth + 1) if inner else []
                if entry.get("name") in shown if inner else entry.get("widget"):
                    slots.add(link.origin_slot)
        known[key] = [str(entry.get("name")) for slot, entry in enumerate(source["inputs"]) if slot in slots]
    return known[key]


class LinkLine(NamedTuple):
    """One link of a graph, ids as text."""

    link_id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


def link_of(entry: Any) -> LinkLine | None:
    """One link in either of its two forms; None for what is no link."""
    if isinstance(entry, dict):
        entry = [entry.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    if not isinstance(entry, list) or len(entry) < 5:
        return None
    link_id, origin, origin_slot, target, target_slot = entry[:5]
    if not isinstance(origin_slot, int) or not isinstance(target_slot, int):
        return None
    return LinkLine(str(link_id), str(origin), origin_slot, str(target), target_slot)


def passed_on(node: Json, slot: int, kind: str) -> int | None:
    """The input that a bypassed node passes on as one of its outputs: one of the wanted type, linked or not."""
    inputs = [str(entry.get("type")) for entry in node["inputs"]]
    given = str(entry_at(node["outputs"], slot).get("type"))
    if kind in ANY_TYPE:
        return slot if slot < len(inputs) else 0
    fits = [index for index, one in enumerate(inputs) if _connects(one, given) and _connects(one, kind)]
    if slot in fits:
        return slot
    if kind in inputs:
        return inputs.index(kind)
    return fits[0] if fits else None


def _connects(one: str, other: str) -> bool:
    """Whether the editor lets an output of one type into an input of another (``LiteGraph.isValidConnection``)."""
    if one in ANY_TYPE or other in ANY_TYPE:
        return True
    return not {word.strip() for word in one.lower().split(",")}.isdisjoint(
        word.strip() for word in other.lower().split(",")
    )


def id_of(node: Json) -> str:
    """A node's id as text."""
    return str(node.get("id"))


def well_formed(graph: Json) -> Json:
    """A graph of which the lists are lists and their entries objects, whatever the file holds."""
    nodes = [
        {
            **node,
            "type": RENAMED.get(kind := str(node.get("type") or ""), kind),
            "inputs": dicts(node.get("inputs")),
            "outputs": dicts(node.get("outputs")),
            "properties": as_dict(node.get("properties")),
        }
        for node in dicts(graph.get("nodes"))
    ]
    return {**graph, "nodes": nodes, "links": as_list(graph.get("links")), "inputs": dicts(graph.get("inputs"))}


def as_dict(value: Any) -> Json:
    """The object that a value is, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The list that a value is, else an empty one."""
    return value if isinstance(value, list) else []


def dicts(value: Any) -> list[Json]:
    """The entries of a list, whatever is no object as an empty one, so that positions stay."""
    return [as_dict(entry) for entry in as_list(value)]


def entry_at(entries: list[Json], slot: int) -> Json:
    """The entry of a slot, an empty one where there is none."""
    return entries[slot] if 0 <= slot < len(entries) else {}
