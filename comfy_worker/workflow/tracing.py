"""A workflow read together with what its node classes declare: types of inputs, and where a value comes from.

Owns the question "of what type is this link, and in which node does its literal lie". Knows nothing of what a
sampler or a prompt is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from comfy_worker.workflow.graph import Input, Link, Workflow, as_link, links_of
from comfy_worker.workflow.node_defs import WIDGET_TYPES, InputSpec, NodeDefs

__all__ = ["Graph", "literal_place"]

# What the inputs of a class that is not installed take, by the names that nearly all packs use.
TYPES_BY_NAME = {
    "clip": "CLIP",
    "conditioning": "CONDITIONING",
    "guider": "GUIDER",
    "image": "IMAGE",
    "images": "IMAGE",
    "latent": "LATENT",
    "latent_image": "LATENT",
    "mask": "MASK",
    "model": "MODEL",
    "negative": "CONDITIONING",
    "noise": "NOISE",
    "pixels": "IMAGE",
    "positive": "CONDITIONING",
    "samples": "LATENT",
    "sampler": "SAMPLER",
    "sigmas": "SIGMAS",
    "vae": "VAE",
}

# Types that may hold any other: a link of unknown type, the bundles of custom packs (BASIC_PIPE, RGTHREE_CONTEXT).
CARRIERS = re.compile(r"^\*$|PIPE|CONTEXT")


class Graph:
    """A workflow and the declarations of its classes; classes that are not installed are read by names.

    Args:
        workflow: API format; stays as it is.
        defs: the classes that are installed.
    """

    def __init__(self, workflow: Workflow, defs: NodeDefs) -> None:
        self.workflow = workflow
        self.defs = defs

    def value(self, place: Input) -> Any:
        """What stands in an input; None where the workflow leaves it out."""
        return self.workflow[place.node_id]["inputs"].get(place.name)

    def link(self, place: Input) -> Link | None:
        """The link in an input, where it leads to a node of this workflow."""
        link = as_link(self.value(place))
        return link if link is not None and link.node_id in self.workflow else None

    def spec(self, place: Input) -> InputSpec | None:
        """How the input is declared, if it is."""
        declared = self.defs.get(self.workflow[place.node_id]["class_type"])
        return declared.inputs.get(place.name) if declared else None

    def inputs(self, node_id: str) -> list[Input]:
        """The inputs that the workflow gives a node: in the declared order, then those not declared."""
        given = self.workflow[node_id]["inputs"]
        declared = self.defs.get(self.workflow[node_id]["class_type"])
        order = [name for name in declared.inputs if name in given] if declared else []
        return [Input(node_id, name) for name in (*order, *(name for name in given if name not in order))]

    def output_name(self, link: Link) -> str:
        """The declared name of an output slot, in lower case; empty where it is not known."""
        declared = self.defs.get(self.workflow[link.node_id]["class_type"])
        names = declared.output_names if declared else ()
        return names[link.slot].lower() if 0 <= link.slot < len(names) else ""

    def output_type(self, link: Link) -> str:
        """The declared type of an output slot; ``*`` where it is not known."""
        declared = self.defs.get(self.workflow[link.node_id]["class_type"])
        types = declared.outputs if declared else ()
        return types[link.slot] if 0 <= link.slot < len(types) else "*"

    def type_of(self, place: Input) -> str:
        """What an input takes: as declared, else what its link gives or its literal is, else by its name."""
        spec = self.spec(place)
        if spec is not None and spec.type != "*":
            return spec.type
        link = self.link(place)
        if link is not None:
            given = self.output_type(link)
            return given if given != "*" else TYPES_BY_NAME.get(place.name, "*")
        return _type_of_literal(self.value(place))

    def typed(self, node_id: str, *types: str) -> list[Input]:
        """The linked inputs of a node that take one of the types."""
        places = [place for place in self.inputs(node_id) if self.link(place)]
        return [place for place in places if not set(self.type_of(place).split(",")).isdisjoint(types)]

    def linked(self, node_id: str, *types: str) -> list[Input]:
        """The same; where none takes one, the linked inputs that may carry it (pipes, contexts)."""
        places = [place for place in self.inputs(node_id) if self.link(place)]
        return self.typed(node_id, *types) or [one for one in places if CARRIERS.search(self.type_of(one))]

    def gives_only(self, node_id: str, kind: str) -> bool:
        """Whether every declared output of a node is of one type."""
        declared = self.defs.get(self.workflow[node_id]["class_type"])
        return declared is not None and bool(declared.outputs) and set(declared.outputs) == {kind}

    def widgets(self, node_id: str) -> list[Input]:
        """The inputs of a node that hold a literal, or could."""
        return [
            place for place in self.inputs(node_id) if not WIDGET_TYPES.isdisjoint(self.type_of(place).split(","))
        ]

    def upstream(self, places: Iterable[Input], *types: str) -> Iterator[str]:
        """Every node above the given inputs along links of the given types, nearest first, each once."""
        row = [link.node_id for link in map(self.link, places) if link]
        seen = set()
        while row:
            node_id = row.pop(0)
            if node_id in seen:
                continue
            seen.add(node_id)
            yield node_id
            above = (self.link(place) for place in self.linked(node_id, *types))
            row += [link.node_id for link in above if link]

    def sources(self, places: Iterable[Input], *types: str) -> list[str]:
        """The nodes where links of the given types begin: loaders, empty latents."""
        return [node_id for node_id in self.upstream(places, *types) if not self.linked(node_id, *types)]

    def reading_order(self, outputs: Iterable[str]) -> list[str]:
        """Every node that feeds an output, what feeds a node before it, its inputs in their declared order."""
        order: dict[str, None] = {}
        seen: set[str] = set()
        stack = [(node_id, False) for node_id in reversed(list(outputs))]
        while stack:
            node_id, fed = stack.pop()
            if fed:
                order[node_id] = None
            elif node_id not in seen:
                seen.add(node_id)
                above = [link.node_id for link in map(self.link, self.inputs(node_id)) if link]
                stack += [(node_id, True), *((one, False) for one in reversed(above))]
        return list(order)

    def downstream(self, node_ids: Iterable[str]) -> set[str]:
        """Every node that the given ones feed, themselves left out unless they feed one another."""
        fed: dict[str, list[str]] = {}
        for node_id, node in self.workflow.items():
            for link in links_of(node).values():
                fed.setdefault(link.node_id, []).append(node_id)
        found: set[str] = set()
        row = list(node_ids)
        while row:
            below = [node_id for node_id in fed.get(row.pop(), ()) if node_id not in found]
            found.update(below)
            row += below
        return found


def literal_place(graph: Graph, place: Input) -> Input | None:
    """Where the number or choice that reaches an input is written, if it gets there unchanged.

    A node passes a value on unchanged if its output has the name of one of its inputs (a size node), or if a
    single input is all that it has (a primitive, a reroute).

    Args:
        graph: the workflow.
        place: an input that takes a number or a choice.

    Returns:
        The input that holds the literal; None where the value is computed.
    """
    kind = _kind(graph.type_of(place))
    seen = set()
    while (link := graph.link(place)) is not None:
        inputs = graph.inputs(link.node_id)
        same = [one for one in inputs if one.name.lower() == graph.output_name(link)]
        following = same or inputs
        if len(following) != 1 or link.node_id in seen:
            return None
        seen.add(link.node_id)
        place = following[0]
        if len({kind, _kind(graph.type_of(place))} - {"*"}) > 1:
            return None
    return None if as_link(graph.value(place)) else place


def _kind(declared: str) -> str:
    """What may stand for what: numbers for numbers, words for words."""
    return {"INT": "number", "FLOAT": "number", "STRING": "word", "COMBO": "word"}.get(declared, declared)


def _type_of_literal(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    return {int: "INT", float: "FLOAT", str: "STRING"}.get(type(value), "*")
