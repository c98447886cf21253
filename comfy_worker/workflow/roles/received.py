"""Finds the inputs that get a number which is written elsewhere, perhaps behind an expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.resizers import SIDES
from comfy_worker.workflow.roles.parameter_inputs import PARAMETER_INPUTS, declared_inputs
from comfy_worker.workflow.roles.stages import Stages
from comfy_worker.workflow.settable import settable
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["find_receiving_inputs"]

# The parameters that an expression may compute.
COMPUTED_NUMBERS = (
    "width",
    "height",
    "length",
    "fps",
    "batch_size",
    "steps",
    "cfg",
    "guidance",
    "denoise",
)


def find_receiving_inputs(stages: Stages, found: Mapping[str, Sequence[Input]]) -> dict[str, Input]:
    """Find, by parameter, the input that receives the number.

    Args:
        stages: the stages of the workflow.
        found: by parameter, the inputs in which it is written.

    Returns:
        Nothing for a parameter that is written in an input of its own name.
    """
    latent_sources = stages.origins(stages.main).latent_sources
    node_ids = [*stages.main_settings, *latent_sources, *stages.live]
    received = {}
    for name in COMPUTED_NUMBERS:
        written = next(iter(found.get(name, ())), None)
        if written is None or written.name in PARAMETER_INPUTS[name].names:
            continue
        node_input = _first_receiving(stages.graph, node_ids, name, written)
        if node_input is not None and node_input != written:
            received[name] = node_input
    return received


def _first_receiving(
    graph: TypedWorkflow, node_ids: Iterable[str], name: str, written: Input
) -> Input | None:
    for node_id in node_ids:
        for node_input in declared_inputs(graph, node_id, name):
            if written in settable(graph, node_input, is_size=name in SIDES)[:1]:
                return node_input
    return None
