"""Reads the values of parameters out of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_worker.workflow.edit.parameters import (
    SIDES,
    Declared,
    current_value,
    leading_steps,
    preset_size,
)
from comfy_worker.workflow.graph import Input, Workflow, links_of, number
from comfy_worker.workflow.roles.latent_path import effective_number
from comfy_worker.workflow.roles.parameter_inputs import PARAMETER_INPUTS
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.settable import UPSCALE_FACTORS
from comfy_worker.workflow.values import Values
from comfy_worker.workflow.walks import Fold

__all__ = ["read", "sampler_value", "seeds_of_outputs"]


def read(
    workflow: Workflow,
    roles: Roles,
    declared: Mapping[str, Declared] | None = None,
    before: Workflow | None = None,
) -> dict[str, Any]:
    """Return the current value of each parameter: the value of its first input.

    If the graph computes another number for the sampler, it is that number. A number written as
    text becomes the number that ComfyUI reads from it. If a choice overrides the size, it is the
    size of that choice; the size is left out if the choice does not name one.

    Args:
        workflow: API format.
        roles: of this workflow.
        declared: a template's further parameters.
        before: the workflow before it was filled, which tells whose steps are the leading ones.
    """
    declared = declared or {}
    values = Values(workflow)
    node_inputs = {name: found[0] for name, found in roles.inputs.items()}
    if "steps" in node_inputs:
        unfilled = Values(before) if before else values
        node_inputs["steps"] = leading_steps(unfilled, roles.inputs["steps"])
    for name, entry in declared.items():
        node_inputs[name] = Input(entry.node, entry.input)
    found_values: dict[str, Any] = {}
    for name, node_input in node_inputs.items():
        if node_input.node_id not in workflow:
            continue
        value = _value_of(name, node_input, values, roles, name in declared)
        if value is not None:
            found_values[name] = value
    if isinstance(found_values.get("clip_skip"), int):
        found_values["clip_skip"] = -found_values["clip_skip"]
    return found_values


def _value_of(
    name: str, node_input: Input, values: Values, roles: Roles, is_declared: bool
) -> Any | None:
    value = current_value(values, node_input)
    preset = roles.presets.get(node_input)
    if name in SIDES and preset is not None:
        choice = current_value(values, preset.choice)
        if choice != preset.free:
            return preset_size(choice).get(name)
    if name in roles.latent_paths and not is_declared:
        return effective_number(values, roles.latent_paths[name])
    computed = None
    if name in roles.received and not is_declared:
        computed = sampler_value(name, values, roles)
    elif (
        name in PARAMETER_INPUTS
        and isinstance(value, str)
        and PARAMETER_INPUTS[name].types[0] in ("INT", "FLOAT")
    ):
        computed = number(value)
    return value if computed is None else computed


def sampler_value(name: str, values: Values, roles: Roles) -> int | float | None:
    """Return the number that the sampler or latent receives, if the graph computes it.

    A size that is enlarged again afterwards is the size of the result.
    """
    computed = number(current_value(values, roles.received[name]))
    written = number(current_value(values, roles.inputs[name][0]))
    if computed is None or not written or name not in SIDES:
        return computed
    factor = min((1, *UPSCALE_FACTORS), key=lambda factor: abs(computed * factor - written))
    return computed * factor


def seeds_of_outputs(workflow: Workflow, roles: Roles) -> dict[str, int]:
    """Return the seed of each output node; of several seeds the leading stage's."""
    unassigned = roles.unassigned.get("seed", ())
    node_inputs = [
        *roles.inputs.get("seed", ()),
        *(candidate.node_input for candidate in unassigned),
    ]
    ranks: dict[str, int] = {}
    for rank, node_input in enumerate(node_inputs):
        ranks.setdefault(node_input.node_id, rank)
    no_rank = len(node_inputs)

    def above(node_id: str) -> list[str]:
        links = links_of(workflow[node_id]).values()
        return [link.node_id for link in links if link.node_id in workflow]

    def lowest(node_id: str, ranks_above: list[int]) -> int:
        return min([ranks.get(node_id, no_rank), *ranks_above])

    first_rank = Fold(above, lowest)
    values = Values(workflow)
    seeds = {}
    for node_id in roles.outputs:
        rank = first_rank(node_id) if node_id in workflow else no_rank
        if rank == no_rank:
            continue
        seed = number(current_value(values, node_inputs[rank]))
        if isinstance(seed, int):
            seeds[node_id] = seed
    return seeds
