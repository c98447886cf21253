"""Recognizes samplers by their links and inputs, and finds what is linked to them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from comfy_worker.workflow.graph import Input, Link
from comfy_worker.workflow.roles.parameter_inputs import declared_inputs
from comfy_worker.workflow.roles.text_inputs import polarity
from comfy_worker.workflow.typed_workflow import CARRIER_TYPES, TypedWorkflow, types_in
from comfy_worker.workflow.walks import Fold

__all__ = ["Sampler", "SamplerReader", "is_api_node", "is_sampler", "slots_read"]

BUNDLE = re.compile(r"PIPE|CONTEXT")


@dataclass(frozen=True)
class Sampler:
    """One sampling stage, in one node or in several.

    Attributes:
        node_id: the node that turns a latent into a denoised one.
        model: the input that takes the diffusion model, on the sampler or on its guider.
        positive: the input that takes the positive conditioning, on the sampler or on its guider.
        negative: the same for the negative conditioning; None if the guider has none.
        latent: the input that takes the latent to start from.
    """

    node_id: str
    model: Input | None
    positive: Input | None
    negative: Input | None
    latent: Input | None


class SamplerReader:
    """Finds the inputs of the samplers of one workflow, on the sampler or on its guider."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._model_holders = Fold(
            lambda node_id: graph.above(node_id, "GUIDER"), self._model_holder, graph.check
        )

    def read(self, node_id: str) -> Sampler:
        """Find the inputs of a sampler."""
        graph = self._graph
        holder = self._model_holders(node_id) or node_id
        by_side: dict[str | None, list[Input]] = {"positive": [], "negative": [], None: []}
        for node_input in graph.linked(holder, "CONDITIONING"):
            by_side[polarity(node_input.name)].append(node_input)
        plain = by_side[None]
        # A bundle contains both sides.
        bundles = [
            node_input for node_input in plain if CARRIER_TYPES.search(graph.type_of(node_input))
        ]
        return Sampler(
            node_id,
            model=next(iter(graph.linked(holder, "MODEL")), None),
            positive=next(iter(by_side["positive"] or plain), None),
            negative=next(iter(by_side["negative"] or bundles), None),
            latent=next(iter(graph.linked(node_id, "LATENT")), None),
        )

    def _model_holder(self, node_id: str, above: list[str | None]) -> str | None:
        """Return the node that the model is linked to: the sampler, or its guider."""
        if self._graph.linked(node_id, "MODEL"):
            return node_id
        return next((holder for holder in above if holder), None)


def is_sampler(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node samples, by its links: it takes a model and conditioning, and has steps."""
    if not (_may_output(graph, node_id, "LATENT") or _may_output(graph, node_id, "IMAGE")):
        return False
    takes: set[str] = set()
    for node_input in graph.inputs(node_id):
        takes |= types_in(graph.type_of(node_input))
    has_steps = bool(declared_inputs(graph, node_id, "steps"))
    if "GUIDER" in takes or {"MODEL", "CONDITIONING"} <= takes:
        has_seed = bool(declared_inputs(graph, node_id, "seed"))
        return "SIGMAS" in takes or has_steps or has_seed
    # No socket says what a bundle contains. Then the node's own steps or its class name must.
    is_bundled = any(map(BUNDLE.search, takes))
    return is_bundled and (has_steps or "sampler" in graph.class_type(node_id).lower())


def is_api_node(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node calls a paid service, which makes the result by itself."""
    declared = graph.declared(node_id)
    return declared is not None and declared.is_api


def slots_read(graph: TypedWorkflow, live: Collection[str]) -> dict[str, set[Link]]:
    """Return, by node, the outputs that live nodes read."""
    found: dict[str, set[Link]] = {}
    for link, node_inputs in graph.readers().items():
        if any(node_input.node_id in live for node_input in node_inputs):
            found.setdefault(link.node_id, set()).add(link)
    return found


def _may_output(graph: TypedWorkflow, node_id: str, type_name: str) -> bool:
    """Whether a node may output this type; a node that is not installed may output any."""
    declared = graph.declared(node_id)
    return declared is None or type_name in declared.outputs
