"""Finds the inputs that a client sets so that another input gets a new number or choice."""

from __future__ import annotations

import re

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.literals import Literals, category_of, may_hold, resolve_live_literal
from comfy_worker.workflow.resizers import RESIZER_CLASSES, SIDES, sets_size, short_names
from comfy_worker.workflow.typed_workflow import MEDIA_TYPES, TypedWorkflow
from comfy_worker.workflow.values import COMPUTED
from comfy_worker.workflow.walks import Fold

__all__ = ["UPSCALE_FACTORS", "settable"]

# Nodes that enlarge a latent by a factor that their model has. The graph then computes with a
# fraction of the size.
LATENT_UPSCALERS = re.compile(r"LatentUpsampl|LatentUpscale")
UPSCALE_FACTORS = (2, 4)
# An expression that only rounds a size changes it by less than this.
MAX_ROUNDED = 64
# The most nodes between a number and its use, and the most inputs that get the same new number.
MAX_WAY = 32
MAX_READERS = 32


class Computations:
    """How computed numbers of one workflow are made; get it with ``graph.view(Computations)``.

    Attributes:
        enlarges_latents: whether a node enlarges a latent by a factor that its model decides.
    """

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._literals = graph.view(Literals)
        self._made_of_latents = Fold(
            lambda node_id: graph.above(node_id, "IMAGE"), self._is_made_of_latents, graph.check
        )
        self._depends_on_media = Fold(graph.nodes_above, self._is_from_media, graph.check)
        self.enlarges_latents = any(
            map(LATENT_UPSCALERS.search, map(graph.class_type, graph.workflow))
        )

    def outward(self, node_input: Input) -> list[Input]:
        """Return the inputs through which one number reaches an input, nearest first.

        Continues through a node that computes with a single number. Ends at a literal, or at a node
        that computes with several numbers.
        """
        graph = self._graph
        found: list[Input] = []
        for _ in range(MAX_WAY):
            node_input = self._literals.computed_from(node_input)
            if node_input in found:
                break
            found.append(node_input)
            link = graph.link(node_input)
            if link is None or graph.class_type(link.node_id) not in COMPUTED:
                break
            linked = list(graph.links(link.node_id))
            if len(linked) != 1:
                break
            node_input = linked[0]
        return found

    def is_from_media(self, node_input: Input) -> bool:
        """Whether a value is computed from a picture, a video or a sound."""
        link = self._graph.link(node_input)
        return link is not None and self._depends_on_media(link.node_id)

    def picture_side(self, node_input: Input) -> Input | None:
        """If a number is the measured side of a picture, return the input that sets this side.

        A picture that is resized before it is measured always has the size of the resize node. The
        size of a picture that a sampler made is not set there: the result is None.
        """
        graph = self._graph
        link = graph.link(self._literals.computed_from(node_input))
        side = graph.output_name(link) if link else ""
        pictures = graph.typed(link.node_id, "IMAGE") if link else []
        for _ in range(MAX_WAY):
            if side not in SIDES or len(pictures) != 1:
                return None
            node_id = graph.links(pictures[0].node_id)[pictures[0]].node_id
            found = self._side(node_id, side)
            if found is not None:
                return None if self._made_of_latents(node_id) else found
            if RESIZER_CLASSES.search(graph.class_type(node_id)) and not self.enlarges_latents:
                return None
            pictures = graph.typed(node_id, "IMAGE")
        return None

    def _side(self, node_id: str, side: str) -> Input | None:
        """Return the input with a width or height that ignores the picture's own shape."""
        names = short_names(self._graph.workflow[node_id]["inputs"])
        if "x" in names or not sets_size(names):
            return None
        node_input = Input(node_id, names[side])
        return None if self._graph.values(node_input) == 0 else node_input

    def _is_made_of_latents(self, node_id: str, above: list[bool]) -> bool:
        return any(above) or bool(self._graph.typed(node_id, "LATENT"))

    def _is_from_media(self, node_id: str, above: list[bool]) -> bool:
        return any(above) or bool(self._graph.typed(node_id, *MEDIA_TYPES))


def settable(graph: TypedWorkflow, node_input: Input, is_size: bool = False) -> list[Input]:
    """Return the inputs to set so that an input gets a new number or choice.

    If the value is computed, these are the inputs that read the result: a literal in them replaces
    the computation. An expression that passes its only number on, or only rounds a size, does not
    count as a computation.

    Args:
        graph: the workflow.
        node_input: an input that takes a number or a choice.
        is_size: whether it is a width or a height. A size may be computed from a larger one that a
            latent upscaler reaches in the end.

    Returns:
        The inputs, the deciding one first; empty if the value follows from a picture, a video or a
        sound.
    """
    literal = resolve_live_literal(graph, node_input)
    if literal is not None:
        return [literal]
    link = graph.link(node_input)
    if link is None or not may_hold(
        category_of(graph.type_of(node_input)), graph.output_type(link)
    ):
        return []
    computations = graph.view(Computations)
    if computations.is_from_media(node_input):
        side = computations.picture_side(node_input) if is_size else None
        return settable(graph, side, is_size) if side else []
    way = computations.outward(node_input)
    chosen = way[0]
    for outer in way:
        if _means_the_same(graph, node_input, outer, is_size):
            chosen = outer
    link = graph.link(chosen)
    if link is None:
        return [chosen]
    readers = graph.all_readers(link)[:MAX_READERS]
    return [chosen, *(reader for reader in readers if reader != chosen)]


def _means_the_same(graph: TypedWorkflow, node_input: Input, outer: Input, is_size: bool) -> bool:
    """Whether a client that sets the outer input means the number that the inner input gets."""
    inner, value = graph.values(node_input), graph.values(outer)
    if not isinstance(inner, (int, float)) or not isinstance(value, (int, float)):
        return False
    if category_of(graph.type_of(outer)) == "word":
        return False
    if not is_size:
        return bool(inner == value)
    tolerance = min(MAX_ROUNDED, inner / 8)
    factors = (1, *UPSCALE_FACTORS) if graph.view(Computations).enlarges_latents else (1,)
    return any(abs(value - inner * factor) < tolerance * factor for factor in factors)
