"""Follows latents and pictures back from the samplers to the nodes that make them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.joins import leading_input
from comfy_worker.workflow.roles.bit_sets import union
from comfy_worker.workflow.roles.parameter_inputs import has_size, written_inputs
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Fold, walk

__all__ = ["DRIVERS", "Ancestor", "LatentReader", "LatentTrace", "Origins", "noise_nodes"]

# A sampler can get its settings from other nodes. These are the types of the links to them.
DRIVERS = ("GUIDER", "NOISE", "SAMPLER", "SIGMAS")
# The most nodes between a sampler and the node that sets its size.
MAX_PATH = 64


class LatentTrace(NamedTuple):
    """Facts about how a latent or picture is made, back to the nearest samplers.

    Attributes:
        before: a bit for each sampler whose result is used.
        is_sized: whether a node gives it a width and a height.
        is_noisy: whether a node adds noise with a seed.
    """

    before: int = 0
    is_sized: bool = False
    is_noisy: bool = False


class Ancestor(NamedTuple):
    """A node that a latent is made of, and whether a latent led to it (else a picture)."""

    node_id: str
    is_latent: bool


@dataclass
class Origins:
    """The nodes that make latents.

    Attributes:
        nodes: every node on the way.
        latent_sources: the nodes that make a latent without another latent as input.
        sizes: the latent sources that set a width and height.
    """

    nodes: list[str] = field(default_factory=list)
    latent_sources: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)


class LatentReader:
    """Follows the latents of one workflow.

    Args:
        graph: the workflow.
        samplers: the ids of the samplers. A walk ends at them.
        numbers: by node id, the number of its stage: the position of its bit in sets of stages.
    """

    def __init__(
        self, graph: TypedWorkflow, samplers: Collection[str], numbers: Mapping[str, int]
    ) -> None:
        self._graph = graph
        self._samplers = samplers
        self._numbers = numbers
        self._traces = Fold(self.made_of, self._trace, graph.check)
        self._seeded = Fold(
            lambda node_id: graph.above(node_id, *DRIVERS), self._is_seeded, graph.check
        )

    def trace(self, node_input: Input | None) -> LatentTrace:
        """Return facts about how the latent or picture of an input is made."""
        ancestor = self.ancestor(node_input)
        return self._traces(ancestor) if ancestor else LatentTrace()

    def has_seed(self, node_id: str) -> bool:
        """Whether a node, or one that it gets its settings from, has a seed."""
        return self._seeded(node_id)

    def ancestor(self, node_input: Input | None) -> Ancestor | None:
        """Return the node that the latent or picture of an input comes from."""
        link = self._graph.link(node_input) if node_input else None
        if node_input is None or link is None:
            return None
        return Ancestor(link.node_id, self._graph.type_of(node_input) == "LATENT")

    def made_of(self, ancestor: Ancestor) -> list[Ancestor]:
        """Return the nodes whose latents, else pictures, a node reads.

        A sampler counts as an end, and so does a node that makes a latent of its own size.
        """
        if ancestor.node_id in self._samplers:
            return []
        return [above for above in map(self.ancestor, self.joined(ancestor)) if above is not None]

    def joined(self, ancestor: Ancestor) -> list[Input]:
        """Return the inputs for latents, or else for pictures; none if the node sets the size."""
        if self.sets_size(ancestor):
            return []
        node_id = ancestor.node_id
        return self._graph.linked(node_id, "LATENT") or self._graph.linked(node_id, "IMAGE")

    def leading(self, ancestor: Ancestor) -> Ancestor | None:
        """Return the node whose latent or picture has the size of this node's result."""
        node_inputs = self.joined(ancestor)
        return self.ancestor(leading_input(self._graph, ancestor.node_id, node_inputs))

    def add_origins(self, start: Input | None, origins: Origins, seen: set[Ancestor]) -> None:
        """Add the nodes that make the latent of an input, back to earlier samplers."""
        for ancestor in self._walk(start, seen):
            if ancestor.node_id in self._samplers:
                continue
            origins.nodes.append(ancestor.node_id)
            if self._is_source(ancestor):
                origins.latent_sources.append(ancestor.node_id)
            if self.sets_size(ancestor):
                origins.sizes.append(ancestor.node_id)

    def path_to_size(self, start: Input | None) -> list[str]:
        """Return the nodes from an input back to the node that sets its size, nearest first.

        Empty if it is not known which of several latents gives the size, or if no node sets one.
        """
        path: dict[str, None] = {}
        ancestor = self.ancestor(start)
        while ancestor and ancestor.node_id not in path and len(path) < MAX_PATH:
            path[ancestor.node_id] = None
            if ancestor.node_id in self._samplers:
                return []
            if self.sets_size(ancestor):
                return list(path)
            ancestor = self.leading(ancestor)
        return []

    def _walk(self, start: Input | None, seen: set[Ancestor]) -> Iterator[Ancestor]:
        ancestor = self.ancestor(start)
        return walk([ancestor] if ancestor else [], self.made_of, self._graph.check, seen)

    def _is_source(self, ancestor: Ancestor) -> bool:
        """Whether a node makes a latent without a latent as input: an empty latent, an encoder."""
        if self._graph.linked(ancestor.node_id, "LATENT"):
            return False
        return ancestor.is_latent or not self._graph.linked(ancestor.node_id, "IMAGE")

    def sets_size(self, ancestor: Ancestor) -> bool:
        """Whether a node makes a latent or picture of a width and height of its own."""
        return self._is_source(ancestor) and has_size(self._graph, ancestor.node_id)

    def _trace(self, ancestor: Ancestor, above: list[LatentTrace]) -> LatentTrace:
        node_id = ancestor.node_id
        if node_id in self._samplers:
            return LatentTrace(before=1 << self._numbers[node_id])
        is_sized = any(trace.is_sized for trace in above)
        is_noisy = any(trace.is_noisy for trace in above)
        return LatentTrace(
            union(trace.before for trace in above),
            is_sized or self.sets_size(ancestor),
            is_noisy or any(map(self._seeded, noise_nodes(self._graph, node_id))),
        )

    def _is_seeded(self, node_id: str, above: list[bool]) -> bool:
        return any(above) or bool(written_inputs(self._graph, node_id, "seed"))


def noise_nodes(graph: TypedWorkflow, node_id: str) -> list[str]:
    """Return the noise nodes whose noise this node adds to a latent."""
    return [link.node_id for link in map(graph.link, graph.typed(node_id, "NOISE")) if link]
