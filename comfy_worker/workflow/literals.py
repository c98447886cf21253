"""Finds the input in which a linked number or choice is written, through nodes that pass it on."""

from __future__ import annotations

from comfy_worker.workflow.graph import Input, as_link
from comfy_worker.workflow.node_defs import ANY_TYPE
from comfy_worker.workflow.size_presets import SizePresets
from comfy_worker.workflow.typed_workflow import TypedWorkflow, types_in
from comfy_worker.workflow.values import branch_names
from comfy_worker.workflow.walks import Fold

__all__ = ["Literals", "category_of", "may_hold", "resolve_literal", "resolve_live_literal"]

# Classes that pass numbers on unchanged, although choices beside the numbers say nothing about it.
KNOWN_TO_PASS = frozenset({"WanCameraEmbedding"})
# Inputs beside a size that do not change it.
HARMLESS_INPUTS = frozenset({"batch_size", "length", "color", "seed", "control_after_generate"})
# The values of a switch that does nothing.
OFF_VALUES = frozenset({"off", "no", "none", "false", "disable", "disabled"})

# Types of one category can replace each other.
CATEGORIES = {"INT": "number", "FLOAT": "number", "STRING": "word", "COMBO": "word"}
Categories = frozenset[str]
Literal = tuple["Input | None", Categories]
"""The input that holds a literal (None if the value is computed), and the categories on its way."""


def category_of(type_name: str) -> str:
    """Return ``number``, ``word``, or the type itself."""
    return CATEGORIES.get(type_name, type_name)


def may_hold(category: str, declared: str) -> bool:
    """Whether a declared type may hold a value of this category; an unknown type may."""
    if category == ANY_TYPE:
        return True
    return not {category, ANY_TYPE}.isdisjoint(map(category_of, types_in(declared)))


class Literals:
    """Where the values of one workflow are written; get it with ``graph.view(Literals)``.

    Attributes:
        fixed: by input, its literal, whatever the switches are set to.
        live: by input, its literal behind the active branch of switches whose choice is known.
    """

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._presets = graph.view(SizePresets)
        self.fixed = Fold(self._passed_from, self._literal, graph.check)
        self.live = Fold(self._live_source, self._literal, graph.check)
        self._computed_from: dict[Input, Input] = {}
        self._sources: dict[tuple[str, str], Input | None] = {}

    def computed_from(self, node_input: Input) -> Input:
        """Follow an input back while nodes pass its value on unchanged."""
        if node_input not in self._computed_from:
            way = {node_input: None}
            end = node_input
            category = category_of(self._graph.type_of(node_input))
            while end not in self._computed_from:
                source = next(iter(self._live_source(end)), None)
                if source is None or source in way:
                    break
                if not may_hold(category, self._graph.type_of(source)):
                    break
                way[source] = None
                end = source
            end = self._computed_from.get(end, end)
            self._computed_from |= dict.fromkeys(way, end)
        return self._computed_from[node_input]

    def _passed_from(self, node_input: Input) -> list[Input]:
        """Return the input whose value a linked input gets unchanged: a list of at most one."""
        link = self._graph.link(node_input)
        if link is None:
            return []
        key = (link.node_id, self._graph.output_name(link))
        if key not in self._sources:
            self._sources[key] = self._source(*key)
        source = self._sources[key]
        return [source] if source else []

    def _live_source(self, node_input: Input) -> list[Input]:
        """Like ``_passed_from``, but also through a switch whose choice is known."""
        link = self._graph.link(node_input)
        if link is None:
            return []
        if branch_names(self._graph.workflow[link.node_id]["inputs"]):
            branch = self._graph.branch(link.node_id)
            return [branch] if branch else []
        return self._passed_from(node_input)

    def _source(self, node_id: str, output: str) -> Input | None:
        """Return the input that a node passes on to the output of this name."""
        inputs = self._graph.inputs(node_id)
        if len(inputs) == 1:
            return inputs[0]
        for node_input in inputs:
            if node_input.name.lower() == output:
                return node_input if self._passes_on(node_id) else None
        return None

    def _passes_on(self, node_id: str) -> bool:
        """Whether a node is known to pass its inputs on unchanged.

        The name of an output does not prove it.
        """
        graph = self._graph
        if graph.class_type(node_id) in KNOWN_TO_PASS:
            return True
        declared = graph.declared(node_id)
        unchanging = {name.lower() for name in declared.output_names} if declared else set()
        preset = self._presets.find(node_id)
        if preset is not None and not self._presets.can_be_free(preset):
            return False
        for node_input in graph.inputs(node_id):
            is_passed = node_input.name.lower() in unchanging or node_input.name in HARMLESS_INPUTS
            is_off = str(graph.value(node_input)).lower() in OFF_VALUES
            if not is_passed and not is_off and node_input != preset:
                return False
        return True

    def _literal(self, node_input: Input, above: list[Literal]) -> Literal:
        """Return the input that holds a value, and the categories of the inputs on its way."""
        category = category_of(self._graph.type_of(node_input))
        own: Categories = frozenset() if category == ANY_TYPE else frozenset({category})
        if above:
            literal, categories = above[0]
            # Two categories prove that no single category fits; more would only cost memory.
            return literal, categories if len(categories) > 1 else categories | own
        is_linked = as_link(self._graph.value(node_input)) is not None
        return None if is_linked else node_input, own


def resolve_literal(graph: TypedWorkflow, node_input: Input) -> Input | None:
    """Return the input in which an input's number or choice is written, if it arrives unchanged.

    A node passes a value on unchanged if it has a single input (a primitive, a reroute), or if its
    output has the name of one of its inputs and none of its inputs can change the value (a size
    node).

    Args:
        graph: the workflow.
        node_input: an input that takes a number or a choice.

    Returns:
        The input that holds the literal; None if the value is computed.
    """
    return _of_one_category(graph, node_input, graph.view(Literals).fixed)


def resolve_live_literal(graph: TypedWorkflow, node_input: Input) -> Input | None:
    """Like ``resolve_literal``, but follow the active branch of switches whose choice is known.

    Checks of files and paths use :func:`resolve_literal`: a switch must not decide what a job may
    read.
    """
    return _of_one_category(graph, node_input, graph.view(Literals).live)


def _of_one_category(
    graph: TypedWorkflow, node_input: Input, literals: Fold[Input, Literal]
) -> Input | None:
    if graph.link(node_input) is None:
        is_linked = as_link(graph.value(node_input)) is not None  # to a node that is not there
        return None if is_linked else node_input
    category = category_of(graph.type_of(node_input))
    literal, categories = literals(node_input)
    return literal if category == ANY_TYPE or categories <= {category} else None
