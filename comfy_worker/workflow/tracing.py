"""A workflow read together with what its node classes declare: types of inputs, and where a value comes from.

Every answer is kept, since many walks ask the same of one node: a workflow must not change while it is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from typing import Any

from comfy_worker.workflow.graph import (
    Check,
    Fold,
    Input,
    Link,
    Workflow,
    as_link,
    consumers,
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
from comfy_worker.workflow.values import COMPUTED, Values, branch_names

__all__ = [
    "CARRIERS",
    "KEEPS_SHAPE",
    "LOOKED_AT",
    "RESIZERS",
    "SIZE_CHOICE",
    "UPSCALE_FACTORS",
    "TypedWorkflow",
    "resolve_literal",
    "resolve_live_literal",
    "settable",
]

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

# What only a run makes: a number that follows from one of these is not for a client to set.
LOOKED_AT = ("IMAGE", "MASK", "LATENT", "VIDEO", "AUDIO")

# Nodes that enlarge a latent by a factor that a model has, so that the graph computes with a part of the size.
LATENT_UPSCALERS = re.compile(r"LatentUpsampl|LatentUpscale")
UPSCALE_FACTORS = (2, 4)
# An expression that only rounds a size changes it by less than this.
MAX_ROUNDED = 64

# So many nodes at most lie between a number and its use, and so many inputs get one that by-passes them.
MAX_WAY = 32
MAX_READERS = 32
SIDES = ("width", "height")
# What changes a picture's size by more than its inputs say, and inputs by which a node keeps a picture's shape.
RESIZERS = re.compile(r"Scale|Resize|Crop|Pad|Stitch|Concat", re.IGNORECASE)
KEEPS_SHAPE = re.compile(r"proportion|aspect|divisible")

# Classes that give numbers on unchanged beside choices that have nothing to do with them.
KNOWN_TO_PASS = frozenset({"WanCameraEmbedding"})
# Numbers beside a size that do not change it.
HARMLESS = frozenset({"batch_size", "length", "color", "seed", "control_after_generate"})
# What a switch is set to where it does nothing.
OFF = frozenset({"off", "no", "none", "false", "disable", "disabled"})

# A choice that is a size or a shape, and one that leaves both to the inputs beside it.
SIZE_CHOICE = re.compile(r"(?<!\d)(\d{2,5})\s*[x×*]\s*(\d{2,5})(?!\d)", re.IGNORECASE)
SHAPE_CHOICE = re.compile(
    r"(?<!\d)\d{1,2}\s*:\s*\d{1,2}(?!\d)|square|portrait|landscape", re.IGNORECASE
)
FREE_CHOICE = re.compile(r"custom|manual|free", re.IGNORECASE)

Categories = frozenset[str]


class TypedWorkflow:
    """A workflow together with its node classes.

    For classes that are not installed, input names give the types.

    Args:
        workflow: API format; stays as it is.
        defs: the classes that are installed.
        check: called repeatedly; it may raise an error to end a long walk.
    """

    def __init__(self, workflow: Workflow, defs: NodeDefs, check: Check = never_ends) -> None:
        self.workflow = workflow
        self.defs = defs
        self.check = check
        self.literals = Fold(self._passed_from, self._literal, check)
        self.live_literals = Fold(self._live_source, self._literal, check)
        self.values = Values(workflow, check)
        self._computed_from: dict[Input, Input] = {}
        self._made_of_latents = Fold(
            lambda node_id: self.above(node_id, "IMAGE"), self._is_made_of_latents, check
        )
        self._depends_on_media = Fold(self._nodes_above, self._is_from_media, check)
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
        self._all_readers: dict[Link, list[Input]] | None = None
        self._is_read: set[str] | None = None
        self._fed: dict[str, list[str]] | None = None

    def value(self, node_input: Input) -> Any:
        """Return the value of an input; None if the workflow does not have the input."""
        return self.workflow[node_input.node_id]["inputs"].get(node_input.name)

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
        if node_id not in self._links:
            values = self.workflow[node_id]["inputs"]
            branch = self.branch(node_id)
            off = set(branch_names(values).values()) - {branch.name} if branch else set()
            found = (
                (node_input, as_link(values[node_input.name]))
                for node_input in self.inputs(node_id)
            )
            self._links[node_id] = {
                node_input: link
                for node_input, link in found
                if link is not None and link.node_id in self.workflow and node_input.name not in off
            }
        return self._links[node_id]

    def branch(self, node_id: str) -> Input | None:
        """Return the input that a switch passes on.

        Returns None for other nodes, or if only a run can decide it.
        """
        name = self.values.branch(node_id)
        return Input(node_id, name) if name else None

    def declared(self, node_id: str) -> NodeClass | None:
        """The class of a node, if it is installed."""
        return self.defs.get(self.workflow[node_id]["class_type"])

    def spec(self, node_input: Input) -> InputSpec | None:
        """Return the declaration of an input, also of a nested one such as ``format.bit_depth``."""
        return self.specs(node_input.node_id).get(node_input.name)

    def specs(self, node_id: str) -> Mapping[str, InputSpec]:
        """Return a node's declared inputs for its present values, by their key in the workflow."""
        if node_id not in self._specs:
            declared = self.declared(node_id)
            values = self.workflow[node_id]["inputs"]
            self._specs[node_id] = declared.live_inputs(values) if declared else {}
        return self._specs[node_id]

    def inputs(self, node_id: str) -> list[Input]:
        """Return a node's inputs in the workflow: declared ones in their order, then others."""
        if node_id not in self._inputs:
            present = self.workflow[node_id]["inputs"]
            order = dict.fromkeys(name for name in self.specs(node_id) if name in present)
            order |= dict.fromkeys(present)
            self._inputs[node_id] = [Input(node_id, name) for name in order]
        return self._inputs[node_id]

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
        """Return the links that determine the type of a switch's output."""
        declared = self.declared(link.node_id)
        names = declared.matching_inputs(link.slot) if declared else []
        values = self.workflow[link.node_id]["inputs"] if link.node_id in self.workflow else {}
        found = [as_link(values.get(name)) for name in names]
        return [above for above in found if above is not None and above.node_id in self.workflow]

    def type_of(self, node_input: Input) -> str:
        """Return an input's type: as declared, else of its link or literal, else by its name."""
        if node_input not in self._types:
            self._types[node_input] = self._type_of(node_input)
        return self._types[node_input]

    def _type_of(self, node_input: Input) -> str:
        spec = self.spec(node_input)
        if spec is not None and spec.value_type != ANY_TYPE and not spec.match_id:
            return spec.value_type
        link = self.link(node_input)
        if link is not None:
            output = self.output_type(link)
            return output if output != "*" else TYPES_BY_NAME.get(node_input.name, "*")
        return _type_of_literal(self.value(node_input))

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
                if CARRIERS.search(self.type_of(node_input))
            ]
        return self._linked[key]

    def gives_only(self, node_id: str, category: str) -> bool:
        """Whether every declared output of a node has this type."""
        declared = self.declared(node_id)
        return (
            declared is not None and bool(declared.outputs) and set(declared.outputs) == {category}
        )

    def widgets(self, node_id: str) -> list[Input]:
        """Return the inputs of a node that can hold a literal."""
        if node_id not in self._widgets:
            self._widgets[node_id] = [
                node_input
                for node_input in self.inputs(node_id)
                if not WIDGET_TYPES.isdisjoint(types_in(self.type_of(node_input)))
            ]
        return self._widgets[node_id]

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

        def above(node_id: str) -> list[str]:
            return [link.node_id for link in self.links(node_id).values()]

        def note(node_id: str, _above: list[None]) -> None:
            order.append(node_id)

        numbered = Fold(above, note, self.check)
        for node_id in outputs:
            numbered(node_id)
        return order

    def downstream(self, node_ids: Iterable[str]) -> set[str]:
        """Return every node that the given nodes feed.

        A given node is included only if another one feeds it.
        """
        starts = (fed for node_id in node_ids for fed in self.fed_by(node_id))
        return set(walk(starts, self.fed_by, self.check))

    def fed_by(self, node_id: str) -> list[str]:
        """Return the nodes that read a node, with one entry per link."""
        if self._fed is None:
            self._fed = {}
            for link, node_inputs in self.readers().items():
                self._fed.setdefault(link.node_id, []).extend(
                    node_input.node_id for node_input in node_inputs
                )
        return self._fed.get(node_id, [])

    def preset(self, node_id: str) -> Input | None:
        """Return the choice with which a node overrides its own width and height."""
        return next(
            (node_input for node_input in self.widgets(node_id) if self._is_preset(node_input)),
            None,
        )

    def _is_preset(self, node_input: Input) -> bool:
        key = (self.workflow[node_input.node_id]["class_type"], node_input.name)
        if key not in self._presets:
            spec = self.spec(node_input)
            choices = map(str, (spec.choices if spec else None) or ())
            sizes = [
                choice
                for choice in choices
                if SIZE_CHOICE.search(choice) or SHAPE_CHOICE.search(choice)
            ]
            self._presets[key] = len(sizes) > 1
        return self._presets[key]

    def free_choice(self, preset: Input) -> Any:
        """Return the choice with which a preset uses the width and height inputs.

        Returns None if it has none.
        """
        spec = self.spec(preset)
        choices = (spec.choices if spec else None) or ()
        return next((choice for choice in choices if FREE_CHOICE.search(str(choice))), None)

    def _passed_from(self, node_input: Input) -> list[Input]:
        """Return the input whose value a linked input gets unchanged: a list of at most one."""
        link = self.link(node_input)
        if link is None:
            return []
        name = self.output_name(link)
        key = (link.node_id, name)
        if key not in self._sources:
            self._sources[key] = self._source(link.node_id, name)
        source = self._sources[key]
        return [source] if source else []

    def _live_source(self, node_input: Input) -> list[Input]:
        """Like ``_passed_from``, but also through a switch whose choice is known."""
        link = self.link(node_input)
        if link is None:
            return []
        if branch_names(self.workflow[link.node_id]["inputs"]):
            branch = self.branch(link.node_id)
            return [branch] if branch else []
        return self._passed_from(node_input)

    def computed_from(self, node_input: Input) -> Input:
        """Follow an input back while nodes pass its value on unchanged."""
        if node_input not in self._computed_from:
            way = {node_input: None}
            end = node_input
            category = _category(self.type_of(node_input))
            while end not in self._computed_from:
                source = next(iter(self._live_source(end)), None)
                if source is None or source in way or not _may_be(category, self.type_of(source)):
                    break
                way[source] = None
                end = source
            end = self._computed_from.get(end, end)
            self._computed_from |= dict.fromkeys(way, end)
        return self._computed_from[node_input]

    def outward(self, node_input: Input) -> list[Input]:
        """Return the inputs through which one number reaches an input, nearest first.

        Goes on through a node that computes with a single number; ends at a literal, or where several numbers
        make one.
        """
        found: list[Input] = []
        for _ in range(MAX_WAY):
            node_input = self.computed_from(node_input)
            if node_input in found:
                break
            found.append(node_input)
            link = self.link(node_input)
            if link is None or self.workflow[link.node_id]["class_type"] not in COMPUTED:
                break
            linked = list(self.links(link.node_id))
            if len(linked) != 1:
                break
            node_input = linked[0]
        return found

    def picture_side(self, node_input: Input) -> Input | None:
        """If a number is the measured side of a picture, return the input that sets this side.

        A picture that is resized before it is measured has the size that it is resized to, whatever was sent; one
        that a sampler made has a size that is not set there.
        """
        link = self.link(self.computed_from(node_input))
        side = self.output_name(link) if link else ""
        pictures = self.typed(link.node_id, "IMAGE") if link else []
        for _ in range(MAX_WAY):
            if side not in SIDES or len(pictures) != 1:
                return None
            node_id = self.links(pictures[0].node_id)[pictures[0]].node_id
            found = self._side(node_id, side)
            if found is not None:
                return None if self._made_of_latents(node_id) else found
            resizes = RESIZERS.search(self.workflow[node_id]["class_type"])
            if resizes and not self.enlarges_latents:
                return None
            pictures = self.typed(node_id, "IMAGE")
        return None

    def _side(self, node_id: str, side: str) -> Input | None:
        """Return the input with a width or height that ignores the picture's own shape."""
        names = {
            name.rpartition(".")[2].removeprefix("target_"): name
            for name in self.workflow[node_id]["inputs"]
        }
        if not names.keys() >= set(SIDES) or "x" in names or KEEPS_SHAPE.search(" ".join(names)):
            return None
        node_input = Input(node_id, names[side])
        return None if self.values(node_input) == 0 else node_input

    def _is_made_of_latents(self, node_id: str, above: list[bool]) -> bool:
        return any(above) or bool(self.typed(node_id, "LATENT"))

    def is_from_media(self, node_input: Input) -> bool:
        """Whether a value is computed from a picture, a video or a sound."""
        link = self.link(node_input)
        return link is not None and self._depends_on_media(link.node_id)

    def _nodes_above(self, node_id: str) -> list[str]:
        return [link.node_id for link in self.links(node_id).values()]

    def _is_from_media(self, node_id: str, above: list[bool]) -> bool:
        return any(above) or bool(self.typed(node_id, *LOOKED_AT))

    @cached_property
    def enlarges_latents(self) -> bool:
        """Whether a node enlarges a latent by a factor that its model decides."""
        return any(LATENT_UPSCALERS.search(node["class_type"]) for node in self.workflow.values())

    def _source(self, node_id: str, output: str) -> Input | None:
        inputs = self.inputs(node_id)
        if len(inputs) == 1:
            return inputs[0]
        same = next(
            (node_input for node_input in inputs if node_input.name.lower() == output), None
        )
        return same if same and self._passes_on(node_id) else None

    def _passes_on(self, node_id: str) -> bool:
        """Whether a node is known to pass its inputs on unchanged.

        The name of an output does not prove it.
        """
        if self.workflow[node_id]["class_type"] in KNOWN_TO_PASS:
            return True
        declared = self.declared(node_id)
        outputs = {name.lower() for name in declared.output_names} if declared else set()
        preset = self.preset(node_id)
        if preset is not None and not self._can_be_free(preset):
            return False
        for node_input in self.inputs(node_id):
            is_given_on = node_input.name.lower() in outputs or node_input.name in HARMLESS
            is_off = str(self.value(node_input)).lower() in OFF
            if not is_given_on and not is_off and node_input != preset:
                return False
        return True

    def _can_be_free(self, preset: Input) -> bool:
        """Whether a size choice uses its node's width and height inputs, or can be set to do so."""
        free = self.free_choice(preset)
        is_linked = as_link(self.value(preset)) is not None
        return free is not None and (not is_linked or self.values(preset) == free)

    def _literal(
        self, node_input: Input, above: list[tuple[Input | None, Categories]]
    ) -> tuple[Input | None, Categories]:
        """Return the input that holds a value, and the categories of the inputs on its way."""
        category = _category(self.type_of(node_input))
        own: Categories = frozenset() if category == "*" else frozenset({category})
        if above:
            literal, categories = above[0]
            # Two kinds are as many as it takes to know that no single one fits.
            return literal, categories if len(categories) > 1 else categories | own
        return None if as_link(self.value(node_input)) else node_input, own


def resolve_literal(graph: TypedWorkflow, node_input: Input) -> Input | None:
    """Return the input in which an input's number or choice is written, if it arrives unchanged.

    A node passes a value on unchanged if a single input is all that it has (a primitive, a reroute), or if its
    output has the name of one of its inputs and nothing else in it can change the value (a size node).

    Args:
        graph: the workflow.
        node_input: an input that takes a number or a choice.

    Returns:
        The input that holds the literal; None where the value is computed.
    """
    return _of_one_kind(graph, node_input, graph.literals)


def resolve_live_literal(graph: TypedWorkflow, node_input: Input) -> Input | None:
    """Like ``resolve_literal``, but follow the active branch of switches whose choice is known.

    What a job may read must not hang on a switch, so the checks of files and paths ask :func:`resolve_literal`.
    """
    return _of_one_kind(graph, node_input, graph.live_literals)


def _of_one_kind(
    graph: TypedWorkflow, node_input: Input, literals: Fold[Input, tuple[Input | None, Categories]]
) -> Input | None:
    category = _category(graph.type_of(node_input))
    literal, categories = literals(node_input)
    return literal if category == "*" or categories <= {category} else None


def settable(graph: TypedWorkflow, node_input: Input, is_size: bool = False) -> list[Input]:
    """Return the inputs to set so that an input gets a new number or choice.

    Where it is computed, the inputs that read the result, so that a literal in them by-passes the computation.
    An expression that gives its only number on, or only rounds a size, is no computation in that sense.

    Args:
        graph: the workflow.
        node_input: an input that takes a number or a choice.
        is_size: whether it is a width or a height. A size may be computed from a larger one that a latent
            upscaler reaches in the end.

    Returns:
        The inputs, the one that decides first; none where the value follows from a picture, a clip or a sound.
    """
    literal = resolve_live_literal(graph, node_input)
    if literal is not None:
        return [literal]
    link = graph.link(node_input)
    if link is None or not _may_be(_category(graph.type_of(node_input)), graph.output_type(link)):
        return []
    if graph.is_from_media(node_input):
        side = graph.picture_side(node_input) if is_size else None
        return settable(graph, side, is_size) if side else []
    way = graph.outward(node_input)
    chosen = next(
        (outer for outer in reversed(way) if _means_the_same(graph, node_input, outer, is_size)),
        way[0],
    )
    link = graph.link(chosen)
    if link is None:
        return [chosen]
    readers = graph.all_readers(link)[:MAX_READERS]
    return [chosen, *(reader for reader in readers if reader != chosen)]


def _means_the_same(graph: TypedWorkflow, node_input: Input, outer: Input, is_size: bool) -> bool:
    """Whether a client that sets the outer input means the number that the inner input gets."""
    inner, value = graph.values(node_input), graph.values(outer)
    numbers = (int, float)
    if (
        not isinstance(inner, numbers)
        or not isinstance(value, numbers)
        or _category(graph.type_of(outer)) == "word"
    ):
        return False
    if not is_size:
        return bool(inner == value)
    factors = (1, *UPSCALE_FACTORS) if graph.enlarges_latents else (1,)
    return any(
        abs(value - inner * factor) < min(MAX_ROUNDED, inner / 8) * factor for factor in factors
    )


@cache
def types_in(declared: str) -> Categories:
    """Split a declaration such as ``FLOAT,INT`` into its types."""
    return frozenset(declared.split(","))


def _may_be(category: str, declared: str) -> bool:
    """Whether a type may hold a value of this category; an unknown type may."""
    categories = {_category(word) for word in types_in(declared)}
    return category == ANY_TYPE or ANY_TYPE in categories or category in categories


def _category(declared: str) -> str:
    """Return the category of a type.

    Types of one category can replace each other: numbers, or words.
    """
    return {"INT": "number", "FLOAT": "number", "STRING": "word", "COMBO": "word"}.get(
        declared, declared
    )


def _type_of_literal(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    return {int: "INT", float: "FLOAT", str: "STRING"}.get(type(value), "*")
