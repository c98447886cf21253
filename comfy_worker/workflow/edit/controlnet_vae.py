"""Finds the VAE that a ControlNet needs to read its control map as a latent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from comfy_worker.errors import NoPlace
from comfy_worker.workflow.graph import Link, ancestors
from comfy_worker.workflow.roles.samplers import Sampler
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Fold

__all__ = ["Vaes"]


class Vaes:
    """The VAEs of a workflow, by the samplers that they belong to."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._below = Fold(graph.fed_by, self._first, graph.check)
        self._above = Fold(self._feeding, self._first, graph.check)
        self._makers: dict[str, set[str]] = {}

    def of(self, sampler: Sampler) -> Link:
        """Return the VAE that belongs to a sampler.

        It decodes the sampler's result, or encodes its start image. If there is none, any VAE of
        the workflow is used.

        Raises:
            NoPlace: the workflow has no VAE.
        """
        for vae in self._nearest(sampler.node_id):
            # A VAE that the sampler itself feeds would close a circle.
            if vae is not None and sampler.node_id not in self._makers_of(vae.node_id):
                return vae
        graph = self._graph
        for node_id, node in graph.workflow.items():
            node_class = graph.defs.get(node["class_type"])
            if node_class is not None and "VAE" in node_class.outputs:
                return Link(node_id, node_class.outputs.index("VAE"))
        raise NoPlace(
            "controlnets of this family need a VAE, but this workflow has none; "
            "add a VAELoader to it"
        )

    def _nearest(self, node_id: str) -> Iterator[Link | None]:
        yield self._below(node_id)
        yield self._above(node_id)
        for other_id in self._graph.workflow:
            yield from self._used_by(other_id)

    def _used_by(self, node_id: str) -> Iterator[Link | None]:
        return map(self._graph.link, self._graph.typed(node_id, "VAE"))

    def _feeding(self, node_id: str) -> list[str]:
        return [link.node_id for link in self._graph.links(node_id).values()]

    def _first(self, node_id: str, near: Sequence[Link | None]) -> Link | None:
        return next(filter(None, (*self._used_by(node_id), *near)), None)

    def _makers_of(self, vae_id: str) -> set[str]:
        """Return the node with a VAE and all nodes above it."""
        if vae_id not in self._makers:
            above = ancestors(self._graph.workflow, vae_id, check=self._graph.check)
            self._makers[vae_id] = {vae_id, *above}
        return self._makers[vae_id]
