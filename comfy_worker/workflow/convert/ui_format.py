"""Reads the parts of a UI-format workflow (nodes, links, slots), even if they are malformed.

:mod:`~comfy_worker.workflow.convert.flatten` finds out which node feeds which.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from comfy_worker.errors import InvalidWorkflow, brief

__all__ = [
    "INPUT_NODE",
    "MAX_DEPTH",
    "OUTPUT_NODE",
    "Json",
    "LinkLine",
    "as_dict",
    "as_list",
    "as_text",
    "broadcast_of",
    "dicts",
    "entry_at",
    "id_of",
    "is_editor_file",
    "link_id_of",
    "link_of",
    "nesting_of",
    "passed_on",
    "type_of",
    "well_formed",
]

INPUT_NODE, OUTPUT_NODE = "-10", "-20"
ANY_TYPE = ("", "*", "0", "None")
# Old names of classes -> new ones; the frontend renames them when it opens a file.
RENAMED = {
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
    "T2IAdapterLoader": "ControlNetLoader",
}
MAX_DEPTH = 30
MAX_ID = 200
LARGEST_ID = 10**30
SLOT = re.compile(r"[0-9]{1,9}")

Json = dict[str, Any]


def is_editor_file(value: Any) -> bool:
    """Return whether a value is a workflow in UI format, as the editor's Save writes it."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list) and "links" in value


class LinkLine(NamedTuple):
    """One link of a graph, ids as text."""

    link_id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


def link_of(entry: Any) -> LinkLine | None:
    """Read one link in either of its two forms; None for anything else."""
    if isinstance(entry, dict):
        entry = [
            entry.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        ]
    if not isinstance(entry, list) or len(entry) < 5:
        return None
    link_id, origin, origin_slot, target, target_slot = entry[:5]
    from_slot, to_slot = _slot(origin_slot), _slot(target_slot)
    if from_slot is None or to_slot is None:
        return None
    return LinkLine(as_text(link_id), as_text(origin), from_slot, as_text(target), to_slot)


def link_id_of(entry: Any) -> str:
    """The id of a link, also where the rest of it cannot be read; "" for none."""
    if isinstance(entry, dict):
        return as_text(entry.get("id"))
    return as_text(entry[0]) if isinstance(entry, list) and entry else ""


def _slot(value: Any) -> int | None:
    """The number of a slot; some programs write it as text or with a decimal point."""
    if isinstance(value, str) and SLOT.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def broadcast_of(entry: Any) -> LinkLine | None:
    """Read one entry of ``extra.ue_links``, a link of Use Everywhere; None for anything else."""
    keys = ("downstream", "upstream", "upstream_slot", "downstream", "downstream_slot")
    return link_of([entry.get(key) for key in keys]) if isinstance(entry, dict) else None


def passed_on(node: Json, slot: int, wanted_type: str) -> int | None:
    """Return the input that a bypassed node passes on as an output of the wanted type."""
    types = [type_of(entry) for entry in node["inputs"]]
    output_type = type_of(entry_at(node["outputs"], slot))
    if wanted_type in ANY_TYPE:
        return slot if slot < len(types) else 0
    fits = [
        index
        for index, input_type in enumerate(types)
        if _connects(input_type, output_type) and _connects(input_type, wanted_type)
    ]
    if slot in fits:
        return slot
    if wanted_type in types:
        return types.index(wanted_type)
    return fits[0] if fits else None


def _connects(first: str, second: str) -> bool:
    """Return whether the editor lets an output of one type into an input of another.

    As ``LiteGraph.isValidConnection`` does: a type may name several, with commas between.
    """
    if first in ANY_TYPE or second in ANY_TYPE:
        return True
    first_words = {word.strip() for word in first.lower().split(",")}
    return not first_words.isdisjoint(word.strip() for word in second.lower().split(","))


def id_of(node: Json) -> str:
    """Return a node's id as text.

    Raises:
        InvalidWorkflow: the id is too long. Every node of a subgraph repeats the host's id.
    """
    node_id = as_text(node.get("id"))
    if len(node_id) > MAX_ID:
        raise InvalidWorkflow(
            f"workflow has a node whose id is longer than {MAX_ID} characters: {brief(node_id)}"
        )
    return node_id


def type_of(entry: Json) -> str:
    """Return the type of an input or output; old files have a list of choices in its place."""
    value = entry.get("type")
    return "COMBO" if isinstance(value, list) else as_text(value)


def as_text(value: Any) -> str:
    """Return an id, a name or a type as text; files write them as numbers too."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) > LARGEST_ID:
        raise InvalidWorkflow("workflow has an id with too many digits")
    return "" if isinstance(value, (dict, list)) else str(value)


def nesting_of(value: Any) -> int:
    """Return how deep lists and objects are nested."""
    depth, row = 0, [value]
    while row:
        containers = [entry for entry in row if isinstance(entry, (dict, list)) and entry]
        depth += bool(containers)
        row = []
        for container in containers:
            row += container.values() if isinstance(container, dict) else container
    return depth


def well_formed(graph: Json) -> Json:
    """Copy a graph; anything but an object in one of its lists becomes an empty object."""
    return {
        **graph,
        "nodes": [_well_formed_node(node) for node in dicts(graph.get("nodes"))],
        "links": as_list(graph.get("links")),
        "inputs": dicts(graph.get("inputs")),
        "extra": as_dict(graph.get("extra")),
    }


def _well_formed_node(node: Json) -> Json:
    class_type = as_text(node.get("type") or "")
    return {
        **node,
        "type": RENAMED.get(class_type, class_type),
        "inputs": dicts(node.get("inputs")),
        "outputs": dicts(node.get("outputs")),
        "properties": as_dict(node.get("properties")),
    }


def as_dict(value: Any) -> Json:
    """Return the object that a value is, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return the list that a value is, else an empty one."""
    return value if isinstance(value, list) else []


def dicts(value: Any) -> list[Json]:
    """Return the entries of a list; anything but an object becomes an empty object."""
    return [as_dict(entry) for entry in as_list(value)]


def entry_at(entries: list[Json], slot: int) -> Json:
    """Return the entry of a slot; an empty object if there is none."""
    return entries[slot] if 0 <= slot < len(entries) else {}
