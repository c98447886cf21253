"""Tells a client where a workflow uses other values than the client sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comfy_worker.errors import brief
from comfy_worker.workflow.edit.parameters import SIDES, current_value, leading_steps, listed
from comfy_worker.workflow.edit.read import sampler_value
from comfy_worker.workflow.graph import Input, Workflow, number
from comfy_worker.workflow.roles.latent_path import effective_number
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.values import Values

__all__ = ["fill_notes"]

# Parameters whose value is written to all stages, although these may have had different values.
LEVELLED = ("cfg", "denoise", "sampler", "scheduler", "guidance")


def fill_notes(
    workflow: Workflow,
    filled: Workflow,
    roles: Roles,
    values: Mapping[str, Any],
    declared: Iterable[str] = (),
) -> list[str]:
    """Describe, in sentences, the effects of a client's values that the client may not expect.

    Args:
        workflow: before it was filled.
        filled: the same workflow, filled.
        roles: of the workflow.
        values: the client's, by parameter name.
        declared: the names of a template's further parameters. Each of them means one input.
    """
    notes = _Notes(Values(workflow), Values(filled), roles)
    own = set(declared)
    sentences: list[str] = []
    for name, value in values.items():
        if name in roles.inputs and name not in own:
            sentences += notes.on_computed(name, value)
            sentences += notes.on_inputs(name, value)
    return list(dict.fromkeys(sentences))


class _Notes:
    """Compares the values of one workflow before and after it was filled."""

    def __init__(self, before: Values, after: Values, roles: Roles) -> None:
        self._before = before
        self._after = after
        self._roles = roles

    def on_computed(self, name: str, value: Any) -> list[str]:
        """Tell if the sampler receives another number than the client sent."""
        roles = self._roles
        if name in roles.latent_paths:
            return self._on_way(name, value)
        reached = sampler_value(name, self._after, roles) if name in roles.received else None
        if reached is None or number(value) in (None, reached):
            return []
        return [f"{name} is {reached}: the graph computes it from the {value} of the request"]

    def _on_way(self, name: str, value: Any) -> list[str]:
        """Tell if a node between the latent and the sampler changes the number."""
        way = self._roles.latent_paths[name]
        reached, step = effective_number(self._after, way), way.changes[-1]
        if reached == number(value):
            return []
        shown = "a number that only a run can tell" if reached is None else str(reached)
        return [
            f"{name} goes to {self._roles.inputs[name][0]}, but node {step.node_id} "
            f"({step.class_type}) gives the sampler {shown}"
        ]

    def on_inputs(self, name: str, value: Any) -> list[str]:
        """Tell what the inputs of a parameter received."""
        node_inputs = self._roles.inputs[name]
        if name in SIDES:
            return [*self._on_presets(node_inputs), *self._on_scaled(name, node_inputs)]
        if name in LEVELLED:
            return self._on_levelled(name, node_inputs)
        if name not in ("steps", "seed"):
            return []
        others = self._other_numbers(node_inputs, value)
        if not others:
            return []
        if name == "steps":
            leader = leading_steps(self._before, node_inputs)
            return [f"steps are those of {leader}; in proportion {listed(others)}"]
        return [f"seed is that of {node_inputs[0]}; {listed(others)}, as far from it as before"]

    def _on_scaled(self, name: str, node_inputs: Sequence[Input]) -> list[str]:
        """Tell the sizes of later stages, which were scaled by the same factor as the first."""
        scaled = []
        for node_input in dict.fromkeys(getattr(size, name) for size in self._roles.scaled_sizes):
            value = current_value(self._after, node_input)
            if node_input not in node_inputs and value != current_value(self._before, node_input):
                scaled.append(f"{node_input} has {value}")
        if not scaled:
            return []
        return [f"{name} is that of {node_inputs[0]}; in proportion {listed(scaled)}"]

    def _other_numbers(self, node_inputs: Sequence[Input], sent: Any) -> list[str]:
        others = []
        for node_input in node_inputs:
            value = current_value(self._after, node_input)
            if number(value) != number(sent):
                others.append(f"{node_input} has {value}")
        return others

    def _on_levelled(self, name: str, node_inputs: Sequence[Input]) -> list[str]:
        before = [brief(current_value(self._before, node_input), 20) for node_input in node_inputs]
        if len(set(before)) < 2:
            return []
        held = [
            f"{node_input} ({value})" for node_input, value in zip(node_inputs, before, strict=True)
        ]
        return [f"{name} went to each of {listed(held)}, which had different values"]

    def _on_presets(self, node_inputs: Sequence[Input]) -> list[str]:
        sentences = []
        for node_input in node_inputs:
            preset = self._roles.presets.get(node_input)
            if preset is not None:
                old = brief(current_value(self._before, preset.choice))
                sentences.append(
                    f"{preset.choice} was set from {old!r} to {preset.free!r}, since it decided "
                    "the size"
                )
        return sentences
