"""The result of reading a workflow: which inputs hold which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.workflow.graph import Input, title_of
from comfy_worker.workflow.roles.latent_path import LatentPath
from comfy_worker.workflow.roles.samplers import Sampler
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["Candidate", "Preset", "Roles", "ScaledSize", "StepRange", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """One of several inputs that a parameter could set."""

    node_input: Input
    title: str
    class_type: str


def candidates(graph: TypedWorkflow, node_inputs: Iterable[Input]) -> tuple[Candidate, ...]:
    """Describe inputs by the title and class of their node."""
    return tuple(
        Candidate(
            node_input,
            title_of(graph.workflow, node_input.node_id),
            graph.class_type(node_input.node_id),
        )
        for node_input in node_inputs
    )


@dataclass(frozen=True)
class StepRange:
    """An input that divides the steps at a number, and the input with the number of all steps."""

    node_input: Input
    steps: Input


@dataclass(frozen=True)
class ScaledSize:
    """The literal width and height of a node that resizes a sampler's result."""

    width: Input
    height: Input


@dataclass(frozen=True)
class Preset:
    """A choice of a node that overrides the width and height of the same node.

    Attributes:
        choice: the input with the choice.
        free: the choice that leaves the size to its own inputs; None if there is none.
    """

    choice: Input
    free: Any = None


@dataclass(frozen=True)
class Roles:
    """The purpose of the nodes of one workflow.

    Attributes:
        samplers: the sampling stages, first to last. A sampler with neither text nor noise (a depth
            estimator) counts only if there are no others.
        inputs: by parameter name, the inputs that hold its literal.
        ambiguous: by parameter name, the candidates if the graph alone does not decide.
        outputs: the ids of the output nodes.
        step_ranges: the inputs that divide the steps among stages.
        scaled_sizes: the sizes that must grow with width and height.
        alpha_masks: the ``image`` inputs whose node also outputs its alpha channel as a mask.
        unassigned: by parameter name, similar inputs that keep their value: a refiner's checkpoint
            if the base model's is ``checkpoint``, further pictures if the first is ``image``, a
            detailer's numbers.
        presets: by an input for ``width`` or ``height``, the choice that overrides it now.
        received: by parameter, the input of the sampler or latent that receives it, if the graph
            may compute it from the first of ``inputs``.
        latent_paths: by ``width``, ``height`` or ``batch_size``, the nodes that change it before
            the first sampler.
    """

    samplers: tuple[Sampler, ...]
    inputs: Mapping[str, tuple[Input, ...]]
    ambiguous: Mapping[str, tuple[Candidate, ...]]
    outputs: tuple[str, ...]
    step_ranges: tuple[StepRange, ...] = ()
    scaled_sizes: tuple[ScaledSize, ...] = ()
    alpha_masks: tuple[Input, ...] = ()
    unassigned: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    presets: Mapping[Input, Preset] = field(default_factory=dict)
    received: Mapping[str, Input] = field(default_factory=dict)
    latent_paths: Mapping[str, LatentPath] = field(default_factory=dict)

    def outline(self) -> dict[str, Any]:
        """The roles as JSON: ids of nodes, and inputs written ``node_id.name`` by parameter."""
        inputs = {name: list(map(str, node_inputs)) for name, node_inputs in self.inputs.items()}
        return {
            "samplers": [sampler.node_id for sampler in self.samplers],
            "outputs": list(self.outputs),
            "places": inputs,
            "ambiguous": _names(self.ambiguous),
            "left": _names(self.unassigned),
        }


def _names(by_parameter: Mapping[str, Iterable[Candidate]]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for parameter, found in by_parameter.items():
        names[parameter] = [str(candidate.node_input) for candidate in found]
    return names
