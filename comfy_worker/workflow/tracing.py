"""A workflow read together with what its node classes declare: types of inputs, and where a value comes from.

Every answer is kept, since many walks ask the same of one node: a workflow must not change while it is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from comfy_worker.workflow.graph import (
    Check,
    Fold,
    Input,
    Link,
    Workflow,
    as_link,
    never_ends,
    walk,
)
from comfy_worker.workflow.node_defs import (
    ANY_TYPE,
    WIDGET_TYPES,
    InputSpec,
    NodeClass,
    NodeDefs,
)

__all__ = ["CARRIERS", "SIZE_CHOICE", "Graph", "literal_place"]

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

# Classes that give numbers on unchanged beside choices that have nothing to do with them.
KNOWN_TO_PASS = frozenset({"WanCameraEmbedding"})
# Numbers beside a size that do not change it.
HARMLESS = frozenset({"batch_size", "length", "color", "seed", "control_after_generate"})
# What a switch is set to where it does nothing.
OFF = frozenset({"off", "no", "none", "false", "disable", "disabled"})

# A choice that is a size or a shape, and one that leaves both to the inputs beside it.
SIZE_CHOICE = re.compile(r"(?<!\d)(\d{2,5})\s*[x×*]\s*(\d{2,5})(?!\d)", re.IGNORECASE)
SHAPE_CHOICE = re.compile(r"(?<!\d)\d{1,2}\s*:\s*\d{1,2}(?!\d)|square|portrait|landscape", re.IGNORECASE)
FREE_CHOICE = re.compile(r"custom|manual|free", re.IGNORECASE)

Kinds = frozenset[str]


class Graph:
    """A workflow and the declarations of its classes; classes that are not installed are read by names.

    Args:
        workflow: API format; stays as it is.
        defs: the classes that are installed.
        check: asked again and again, so that long walks can be ended.
    """

    def __init__(self, workflow: Workflow, defs: NodeDefs, check: Check = never_ends) -> None:
        self.workflow = workflow
        self.defs = defs
        self.check = check
        self.literals = Fold(self._passed_from, self._literal, check)
        self._specs: dict[str, Mapping[str, InputSpec]] = {}
        self._output_types: dict[Link, str] = {}
        self._inputs: dict[str, list[Input]] = {}
        self._links: dict[str, dict[Input, Link]] = {}
        self._widgets: dict[str, list[Input]] = {}
        self._types: dict[Input, str] = {}
        self._linked: dict[tuple[str, tuple[str, ...]], list[Input]] = {}
        self._sources: dict[tuple[str, str], Input | None] = {}
        self._presets: dict[tuple[str, str], bool] = {}
        self._readers: dict[Link, list[Input]] | None = None
        self._fed: dict[str, list[str]] | None = None

    def value(self, place: Input) -> Any:
        """What stands in an input; None where the workflow leaves it out."""
        return self.workflow[place.node_id]["inputs"].get(place.name)

    def link(self, place: Input) -> Link | None:
        """The link in an input, where it leads to a node of this workflow."""
        return self.links(place.node_id).get(place)

    def links(self, node_id: str) -> dict[Input, Link]:
        """The linked inputs of a node in the order of its inputs; those that lead nowhere are left out."""
        if node_id not in self._links:
            values = self.workflow[node_id]["inputs"]
            found = ((place, as_link(values[place.name])) for place in self.inputs(node_id))
            self._links[node_id] = {
                place: link for place, link in found if link is not None and link.node_id in self.workflow
            }
        return self._links[node_id]

    def declared(self, node_id: str) -> NodeClass | None:
        """The class of a node, if it is installed."""
        return self.defs.get(self.workflow[node_id]["class_type"])

    def spec(self, place: Input) -> InputSpec | None:
        """How the input is declared, if it is; also one below another, such as ``format.bit_depth``."""
        return self.specs(place.node_id).get(place.name)

    def specs(self, node_id: str) -> Mapping[str, InputSpec]:
        """The inputs that a node has with its present values, by the key that stands in the workflow."""
        if node_id not in self._specs:
            declared = self.declared(node_id)
            values = self.workflow[node_id]["inputs"]
            self._specs[node_id] = declared.live_inputs(values) if declared else {}
        return self._specs[node_id]

    def inputs(self, node_id: str) -> list[Input]:
        """The inputs that the workflow gives a node: in the declared order, then those not declared."""
        if node_id not in self._inputs:
            present = self.workflow[node_id]["inputs"]
            order = dict.fromkeys(name for name in self.specs(node_id) if name in present)
            order |= dict.fromkeys(present)
            self._inputs[node_id] = [Input(node_id, name) for name in order]
        return self._inputs[node_id]

    def readers(self) -> dict[Link, list[Input]]:
        """By output, the inputs that are linked to it."""
        if self._readers is None:
            self._readers = {}
            for node_id in self.workflow:
                for place, link in self.links(node_id).items():
                    self._readers.setdefault(link, []).append(place)
        return self._readers

    def output_name(self, link: Link) -> str:
        """The declared name of an output slot, in lower case; empty where it is not known."""
        declared = self.declared(link.node_id)
        names = declared.output_names if declared else ()
        return names[link.slot].lower() if 0 <= link.slot < len(names) else ""

    def output_type(self, link: Link) -> str:
        """The type of an output slot; ``*`` where it is not known.

        The output of a switch has the type of what is linked to its branches, through any number of switches.
        """
        passed: dict[Link, None] = {}
        to_look_at = [link]
        while to_look_at:
            current = to_look_at.pop()
            if current in passed:
                continue
            known = self._output_types.get(current)
            if known is None and self._matching(current):
                passed[current] = None
                to_look_at += self._matching(current)
                continue
            known = known or self._declared_output(current)
            if known != ANY_TYPE:
                self._output_types |= dict.fromkeys(passed, known)
                return known
        self._output_types |= {unknown: self._declared_output(unknown) for unknown in passed}
        return self._declared_output(link)

    def _declared_output(self, link: Link) -> str:
        declared = self.declared(link.node_id)
        types = declared.outputs if declared else ()
        return types[link.slot] if 0 <= link.slot < len(types) else ANY_TYPE

    def _matching(self, link: Link) -> list[Link]:
        """The links whose type an output has."""
        declared = self.declared(link.node_id)
        names = declared.matching_inputs(link.slot) if declared else []
        values = self.workflow[link.node_id]["inputs"] if link.node_id in self.workflow else {}
        found = [as_link(values.get(name)) for name in names]
        return [above for above in found if above is not None and above.node_id in self.workflow]

    def type_of(self, place: Input) -> str:
        """What an input takes: as declared, else what its link gives or its literal is, else by its name."""
        if place not in self._types:
            self._types[place] = self._type_of(place)
        return self._types[place]

    def _type_of(self, place: Input) -> str:
        spec = self.spec(place)
        if spec is not None and spec.value_type != ANY_TYPE and not spec.match_id:
            return spec.value_type
        link = self.link(place)
        if link is not None:
            output = self.output_type(link)
            return output if output != "*" else TYPES_BY_NAME.get(place.name, "*")
        return _type_of_literal(self.value(place))

    def typed(self, node_id: str, *types: str) -> list[Input]:
        """The linked inputs of a node that take one of the types."""
        return [place for place in self.links(node_id) if not types_in(self.type_of(place)).isdisjoint(types)]

    def linked(self, node_id: str, *types: str) -> list[Input]:
        """The same; where none takes one, the linked inputs that may carry it (pipes, contexts)."""
        key = (node_id, types)
        if key not in self._linked:
            self._linked[key] = self.typed(node_id, *types) or [
                place for place in self.links(node_id) if CARRIERS.search(self.type_of(place))
            ]
        return self._linked[key]

    def gives_only(self, node_id: str, kind: str) -> bool:
        """Whether every declared output of a node is of one type."""
        declared = self.declared(node_id)
        return declared is not None and bool(declared.outputs) and set(declared.outputs) == {kind}

    def widgets(self, node_id: str) -> list[Input]:
        """The inputs of a node that hold a literal, or could."""
        if node_id not in self._widgets:
            self._widgets[node_id] = [
                place
                for place in self.inputs(node_id)
                if not WIDGET_TYPES.isdisjoint(types_in(self.type_of(place)))
            ]
        return self._widgets[node_id]

    def above(self, node_id: str, *types: str) -> list[str]:
        """The nodes that feed a node along links of the given types."""
        links = self.links(node_id)
        return [links[place].node_id for place in self.linked(node_id, *types)]

    def upstream(self, places: Iterable[Input], *types: str) -> Iterator[str]:
        """Every node above the given inputs along links of the given types, nearest first, each once."""
        starts = [link.node_id for link in map(self.link, places) if link]
        return walk(starts, lambda node_id: self.above(node_id, *types), self.check)

    def sources(self, places: Iterable[Input], *types: str) -> list[str]:
        """The nodes where links of the given types begin: loaders, empty latents."""
        return [node_id for node_id in self.upstream(places, *types) if not self.linked(node_id, *types)]

    def reading_order(self, outputs: Iterable[str]) -> list[str]:
        """Every node that feeds an output, what feeds a node before it, its inputs in their declared order."""
        order: list[str] = []

        def above(node_id: str) -> list[str]:
            return [link.node_id for link in self.links(node_id).values()]

        def note(node_id: str, _above: list[None]) -> None:
            order.append(node_id)

        numbered = Fold(above, note, self.check)
        for node_id in outputs:
            numbered(node_id)
        return order

    def downstream(self, node_ids: Iterable[str]) -> set[str]:
        """Every node that the given ones feed, themselves left out unless they feed one another."""
        starts = (fed for node_id in node_ids for fed in self.fed_by(node_id))
        return set(walk(starts, self.fed_by, self.check))

    def fed_by(self, node_id: str) -> list[str]:
        """The nodes that read a node, one entry a link."""
        if self._fed is None:
            self._fed = {}
            for link, places in self.readers().items():
                self._fed.setdefault(link.node_id, []).extend(place.node_id for place in places)
        return self._fed.get(node_id, [])

    def preset(self, node_id: str) -> Input | None:
        """The choice of a size or shape by which a node overrides the width and height that it holds."""
        return next((place for place in self.widgets(node_id) if self._is_preset(place)), None)

    def _is_preset(self, place: Input) -> bool:
        key = (self.workflow[place.node_id]["class_type"], place.name)
        if key not in self._presets:
            spec = self.spec(place)
            choices = map(str, (spec.choices if spec else None) or ())
            sizes = [one for one in choices if SIZE_CHOICE.search(one) or SHAPE_CHOICE.search(one)]
            self._presets[key] = len(sizes) > 1
        return self._presets[key]

    def free_choice(self, preset: Input) -> Any:
        """The choice with which a preset leaves width and height to their inputs; None if it has none."""
        spec = self.spec(preset)
        choices = (spec.choices if spec else None) or ()
        return next((one for one in choices if FREE_CHOICE.search(str(one))), None)

    def _passed_from(self, place: Input) -> list[Input]:
        """The input whose value a linked input gets unchanged, at most one."""
        link = self.link(place)
        if link is None:
            return []
        name = self.output_name(link)
        key = (link.node_id, name)
        if key not in self._sources:
            self._sources[key] = self._source(link.node_id, name)
        source = self._sources[key]
        return [source] if source else []

    def _source(self, node_id: str, output: str) -> Input | None:
        inputs = self.inputs(node_id)
        if len(inputs) == 1:
            return inputs[0]
        same = next((place for place in inputs if place.name.lower() == output), None)
        return same if same and self._passes_on(node_id) else None

    def _passes_on(self, node_id: str) -> bool:
        """Whether a node is known to give its inputs on unchanged; the name of an output alone proves nothing."""
        if self.workflow[node_id]["class_type"] in KNOWN_TO_PASS:
            return True
        declared = self.declared(node_id)
        outputs = {name.lower() for name in declared.output_names} if declared else set()
        preset = self.preset(node_id)
        for place in self.inputs(node_id):
            is_given_on = place.name.lower() in outputs or place.name in HARMLESS
            is_off = str(self.value(place)).lower() in OFF
            if not is_given_on and not is_off and place != preset:
                return False
        return True

    def _literal(self, place: Input, above: list[tuple[Input | None, Kinds]]) -> tuple[Input | None, Kinds]:
        """Where a value is written, and of which kinds the inputs are that it passes through."""
        kind = _kind(self.type_of(place))
        own: Kinds = frozenset() if kind == "*" else frozenset({kind})
        if above:
            literal, kinds = above[0]
            # Two kinds are as many as it takes to know that no single one fits.
            return literal, kinds if len(kinds) > 1 else kinds | own
        return None if as_link(self.value(place)) else place, own


def literal_place(graph: Graph, place: Input) -> Input | None:
    """Where the number or choice that reaches an input is written, if it gets there unchanged.

    A node passes a value on unchanged if a single input is all that it has (a primitive, a reroute), or if its
    output has the name of one of its inputs and nothing else in it can change the value (a size node).

    Args:
        graph: the workflow.
        place: an input that takes a number or a choice.

    Returns:
        The input that holds the literal; None where the value is computed.
    """
    kind = _kind(graph.type_of(place))
    literal, kinds = graph.literals(place)
    return literal if kind == "*" or kinds <= {kind} else None


@cache
def types_in(declared: str) -> Kinds:
    """The types that a declaration such as ``FLOAT,INT`` names."""
    return frozenset(declared.split(","))


def _kind(declared: str) -> str:
    """What may stand for what: numbers for numbers, words for words."""
    return {"INT": "number", "FLOAT": "number", "STRING": "word", "COMBO": "word"}.get(declared, declared)


def _type_of_literal(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    return {int: "INT", float: "FLOAT", str: "STRING"}.get(type(value), "*")
