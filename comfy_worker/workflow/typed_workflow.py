"""A workflow joined with the definitions of its node classes: types, links, and walks along them.

Answers are cached, because many walks need the same answer: a workflow must not change while a
:class:`TypedWorkflow` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from comfy_worker.workflow.graph import Input, Link, Workflow, as_link, consumers
from comfy_worker.workflow.node_defs import (
    ANY_TYPE,
    WIDGET_TYPES,
    InputSpec,
    NodeClass,
    NodeDefs,
)
from comfy_worker.workflow.values import Values, branch_names
from comfy_worker.workflow.walks import Check, Fold, never_ends, walk

__all__ = ["CARRIER_TYPES", "MEDIA_TYPES", "TypedWorkflow", "is_carrier", "types_in"]

V = TypeVar("V")

# The types of inputs of classes that are not installed, by the input names that nearly all node
# packs use.
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
TYPES_OF_LITERALS: dict[type, str] = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}

# Types that can contain any other type: a link of unknown type, and the bundles of custom node
# packs (BASIC_PIPE, RGTHREE_CONTEXT).
CARRIER_TYPES = re.compile(r"^\*$|PIPE|CONTEXT")

# Only a run makes these. A client cannot set a number that is computed from one of them.
MEDIA_TYPES = ("IMAGE", "MASK", "LATENT", "VIDEO", "AUDIO")


class TypedWorkflow:
    """A workflow together with its node classes.

    For classes that are not installed, input names give the types.

    Args:
        workflow: API format; is not changed.
        defs: the classes that are installed.
        check: called repeatedly; it may raise an error to end a long walk.

    Attributes:
        values: computes what the inputs receive.
    """

    def __init__(self, workflow: Workflow, defs: NodeDefs, check: Check = never_ends) -> None:
        self.workflow = workflow
        self.defs = defs
        self.check = check
        self.values = Values(workflow, check)
        self._views: dict[Callable[..., Any], Any] = {}
        self._specs: dict[str, Mapping[str, InputSpec]] = {}
        self._output_types: dict[Link, str] = {}
        self._inputs: dict[str, list[Input]] = {}
        self._links: dict[str, dict[Input, Link]] = {}
        self._widgets: dict[str, list[Input]] = {}
        self._types: dict[Input, str] = {}
        self._linked: dict[tuple[str, tuple[str, ...]], list[Input]] = {}
        self._readers: dict[Link, list[Input]] | None = None
        self._all_readers: dict[Link, list[Input]] | None = None
        self._is_read: set[str] | None = None
        self._fed: dict[str, list[str]] | None = None

    def view(self, make: Callable[[TypedWorkflow], V]) -> V:
        """Return ``make(self)``, made once: it caches further answers about this workflow."""
        if make not in self._views:
            self._views[make] = make(self)
        view: V = self._views[make]
        return view

    # --- one node, one input

    def class_type(self, node_id: str) -> str:
        """Return the name of a node's class."""
        class_type: str = self.workflow[node_id]["class_type"]
        return class_type

    def declared(self, node_id: str) -> NodeClass | None:
        """Return the class of a node, if it is installed."""
        return self.defs.get(self.workflow[node_id]["class_type"])

    def value(self, node_input: Input) -> Any:
        """Return the value of an input; None if the workflow does not have the input."""
        return self.workflow[node_input.node_id]["inputs"].get(node_input.name)

    def spec(self, node_input: Input) -> InputSpec | None:
        """Return the declaration of an input, also of a nested one such as ``format.bit_depth``."""
        return self.specs(node_input.node_id).get(node_input.name)

    def specs(self, node_id: str) -> Mapping[str, InputSpec]:
        """Return a node's declared inputs for its present values, by their key in the workflow."""
        known = self._specs.get(node_id)
        if known is None:
            declared = self.declared(node_id)
            values = self.workflow[node_id]["inputs"]
            known = self._specs[node_id] = declared.live_inputs(values) if declared else {}
        return known

    def inputs(self, node_id: str) -> list[Input]:
        """Return a node's inputs in the workflow: declared ones in their order, then others."""
        if node_id not in self._inputs:
            present = self.workflow[node_id]["inputs"]
            order = dict.fromkeys(name for name in self.specs(node_id) if name in present)
            order |= dict.fromkeys(present)
            self._inputs[node_id] = [Input(node_id, name) for name in order]
        return self._inputs[node_id]

    def widgets(self, node_id: str) -> list[Input]:
        """Return the inputs of a node that can hold a literal."""
        if node_id not in self._widgets:
            self._widgets[node_id] = [
                node_input
                for node_input in self.inputs(node_id)
                if not WIDGET_TYPES.isdisjoint(types_in(self.type_of(node_input)))
            ]
        return self._widgets[node_id]

    # --- links

    def link(self, node_input: Input) -> Link | None:
        """Return the link of an input.

        Returns None if it has none, or if the linked node does not exist.
        """
        return self.links(node_input.node_id).get(node_input)

    def links(self, node_id: str) -> dict[Input, Link]:
        """Return the linked inputs that a node reads, in the order of its inputs.

        Links to nodes that do not exist are left out, and so are the branches of a switch that are
        off.
        """
        known = self._links.get(node_id)
        if known is None:
            values = self.workflow[node_id]["inputs"]
            branch = self.branch(node_id)
            off = set(branch_names(values).values()) - {branch.name} if branch else set()
            known = self._links[node_id] = {}
            for node_input in self.inputs(node_id):
                value = values[node_input.name]
                # Most inputs are literals, and the call costs more than this look.
                link = as_link(value) if isinstance(value, (list, tuple)) else None
                if link and link.node_id in self.workflow and node_input.name not in off:
                    known[node_input] = link
        return known

    def branch(self, node_id: str) -> Input | None:
        """Return the input that a switch passes on.

        Returns None for other nodes, or if only a run can decide it.
        """
        name = self.values.branch(node_id)
        return Input(node_id, name) if name else None

    def readers(self) -> dict[Link, list[Input]]:
        """Return, for each output, the inputs that are linked to it."""
        if self._readers is None:
            self._readers = {}
            for node_id in self.workflow:
                for node_input, link in self.links(node_id).items():
                    self._readers.setdefault(link, []).append(node_input)
        return self._readers

    def all_readers(self, link: Link) -> list[Input]:
        """Return all inputs that are linked to an output, also switch branches that are off."""
        if self._all_readers is None:
            self._all_readers = consumers(self.workflow)
        return self._all_readers.get(link, [])

    def is_read(self, node_id: str) -> bool:
        """Whether any input is linked to a node, including branches of a switch that are off."""
        if self._is_read is None:
            self._is_read = {link.node_id for link in consumers(self.workflow)}
        return node_id in self._is_read

    # --- types

    def output_name(self, link: Link) -> str:
        """Return the declared name of an output slot, in lower case; empty if it is not known."""
        declared = self.declared(link.node_id)
        names = declared.output_names if declared else ()
        return names[link.slot].lower() if 0 <= link.slot < len(names) else ""

    def output_type(self, link: Link) -> str:
        """Return the type of an output slot; ``*`` if it is not known.

        A switch outputs the type of the links to its branches; these may come from other switches.
        """
        passed: dict[Link, None] = {}
        to_visit = [link]
        while to_visit:
            current = to_visit.pop()
            if current in passed:
                continue
            known = self._output_types.get(current)
            if known is None and self._matching(current):
                passed[current] = None
                to_visit += self._matching(current)
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
        """Return the links that determine the type of a switch's output."""
        declared = self.declared(link.node_id)
        names = declared.matching_inputs(link.slot) if declared else []
        values = self.workflow[link.node_id]["inputs"] if link.node_id in self.workflow else {}
        found = [as_link(values.get(name)) for name in names]
        return [above for above in found if above is not None and above.node_id in self.workflow]

    def type_of(self, node_input: Input) -> str:
        """Return an input's type: as declared, else of its link or literal, else by its name."""
        known = self._types.get(node_input)
        if known is None:
            known = self._types[node_input] = self._type_of(node_input)
        return known

    def _type_of(self, node_input: Input) -> str:
        spec = self.spec(node_input)
        if spec is not None and spec.value_type != ANY_TYPE and not spec.match_id:
            return spec.value_type
        link = self.link(node_input)
        if link is None:
            return TYPES_OF_LITERALS.get(type(self.value(node_input)), ANY_TYPE)
        output = self.output_type(link)
        return output if output != ANY_TYPE else TYPES_BY_NAME.get(node_input.name, ANY_TYPE)

    def typed(self, node_id: str, *types: str) -> list[Input]:
        """Return the linked inputs of a node that take one of the types."""
        return [
            node_input
            for node_input in self.links(node_id)
            if not types_in(self.type_of(node_input)).isdisjoint(types)
        ]

    def linked(self, node_id: str, *types: str) -> list[Input]:
        """Like ``typed``, but if that finds nothing, return pipes and contexts.

        They may contain the types.
        """
        key = (node_id, types)
        if key not in self._linked:
            self._linked[key] = self.typed(node_id, *types) or [
                node_input
                for node_input in self.links(node_id)
                if is_carrier(self.type_of(node_input))
            ]
        return self._linked[key]

    def gives_only(self, node_id: str, type_name: str) -> bool:
        """Whether every declared output of a node has this type."""
        declared = self.declared(node_id)
        return declared is not None and set(declared.outputs) == {type_name}

    # --- walks

    def nodes_above(self, node_id: str) -> list[str]:
        """Return the nodes that feed a node, with one entry per link."""
        return [link.node_id for link in self.links(node_id).values()]

    def above(self, node_id: str, *types: str) -> list[str]:
        """Return the nodes that feed a node through links of the given types."""
        links = self.links(node_id)
        return [links[node_input].node_id for node_input in self.linked(node_id, *types)]

    def upstream(self, node_inputs: Iterable[Input], *types: str) -> Iterator[str]:
        """Yield each node that feeds the inputs through links of the given types, nearest first."""
        starts = [link.node_id for link in map(self.link, node_inputs) if link]
        return walk(starts, lambda node_id: self.above(node_id, *types), self.check)

    def sources(self, node_inputs: Iterable[Input], *types: str) -> list[str]:
        """Return the nodes where links of the given types begin, such as loaders."""
        return [
            node_id
            for node_id in self.upstream(node_inputs, *types)
            if not self.linked(node_id, *types)
        ]

    def reading_order(self, outputs: Iterable[str]) -> list[str]:
        """Return the nodes that feed an output, each after those that feed it."""
        order: list[str] = []

        def add(node_id: str, _above: list[None]) -> None:
            order.append(node_id)

        visit = Fold(self.nodes_above, add, self.check)
        for node_id in outputs:
            visit(node_id)
        return order

    def downstream(self, node_ids: Iterable[str]) -> set[str]:
        """Return every node that these nodes feed.

        One of these nodes is included only if another one feeds it.
        """
        starts = (fed for node_id in node_ids for fed in self.fed_by(node_id))
        return set(walk(starts, self.fed_by, self.check))

    def fed_by(self, node_id: str) -> list[str]:
        """Return the nodes that read a node, with one entry per link."""
        if self._fed is None:
            self._fed = {}
            for link, node_inputs in self.readers().items():
                readers = [node_input.node_id for node_input in node_inputs]
                self._fed.setdefault(link.node_id, []).extend(readers)
        return self._fed.get(node_id, [])


@cache
def is_carrier(declared: str) -> bool:
    """Whether a type can contain any other type."""
    return CARRIER_TYPES.search(declared) is not None


@cache
def types_in(declared: str) -> frozenset[str]:
    """Split a declaration such as ``FLOAT,INT`` into its types."""
    return frozenset(declared.split(","))
