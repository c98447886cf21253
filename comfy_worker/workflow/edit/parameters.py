"""Finds the inputs of a workflow that hold a parameter, and what they accept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from comfy_worker.errors import Ambiguous, NoPlace, brief
from comfy_worker.workflow.constraints import Constraints, InputConstraint
from comfy_worker.workflow.graph import Input, Workflow, number
from comfy_worker.workflow.node_defs import InputSpec
from comfy_worker.workflow.roles.parameter_inputs import PARAMETER_INPUTS, TEXT_SIDES
from comfy_worker.workflow.roles.roles import Candidate, Roles
from comfy_worker.workflow.size_presets import SIZE_CHOICE
from comfy_worker.workflow.values import UNKNOWN, Values

__all__ = [
    "SIDES",
    "Declared",
    "constraint_of",
    "current_value",
    "has_input",
    "inputs_of",
    "leading_steps",
    "listed",
    "preset_size",
    "replaced_by_twin",
]

SIDES = ("width", "height")

# In a workflow that has only one of the two, both names mean it.
TWINS = {"cfg": "guidance", "guidance": "cfg"}

# A stage with fewer steps does not tell how many steps the other stages need.
FEW_STEPS = 5
# How many inputs a message names.
MAX_NAMED = 4


class Declared(Protocol):
    """A further parameter, as a template's ``params.json`` declares it."""

    @property
    def node(self) -> str:
        """The node's id."""

    @property
    def input(self) -> str:
        """The name of the node's input."""

    @property
    def default(self) -> Any:
        """The value if a job sends none; None keeps the value in the workflow."""

    @property
    def minimum(self) -> float | None:
        """The smallest number; None keeps the node's own bound."""

    @property
    def maximum(self) -> float | None:
        """The largest number; None keeps the node's own bound."""


def inputs_of(
    workflow: Workflow, roles: Roles, name: str, declared: Mapping[str, Declared]
) -> tuple[Input, ...]:
    """Return the inputs that hold a parameter, at least one.

    Raises:
        NoPlace: the workflow has no input for it.
        Ambiguous: several inputs could be meant.
    """
    if name in declared and declared[name].node in workflow:
        return (Input(declared[name].node, declared[name].input),)
    if name in roles.inputs:
        _refuse_fixed_preset(workflow, roles, name)
        return roles.inputs[name]
    if name in roles.ambiguous:
        raise _ambiguous(workflow, name, roles.ambiguous[name])
    if TWINS.get(name) in roles.inputs:
        return roles.inputs[TWINS[name]]
    known = sorted({*roles.inputs, *declared})
    raise NoPlace(
        f"this workflow has no input for {name}; it has {', '.join(known) or 'no parameters'}, "
        "use overrides for any other input",
        [{"key": name, "parameters": known}],
    )


def replaced_by_twin(
    name: str, names: Collection[str], roles: Roles, declared: Mapping[str, Declared]
) -> str | None:
    """Return the other name of the only input that a parameter has, if that is sent too.

    Args:
        name: of the parameter.
        names: of all parameters that are sent.
        roles: of the workflow.
        declared: a template's further parameters.
    """
    twin = TWINS.get(name)
    own = {*roles.inputs, *roles.ambiguous, *declared}
    return twin if twin in names and twin in own and name not in own else None


def has_input(roles: Roles, name: str, declared: Mapping[str, Declared]) -> bool:
    """Return whether a workflow has an input for a parameter."""
    if name in declared:
        return True
    for node_input in roles.inputs.get(name, ()):
        preset = roles.presets.get(node_input)
        if preset is not None and preset.free is None:
            return False
    known = {*roles.inputs, *roles.ambiguous, *declared}
    return name in known or TWINS.get(name) in known


def _refuse_fixed_preset(workflow: Workflow, roles: Roles, name: str) -> None:
    """Refuse a size that a choice of the node overrides, if no choice leaves the size free."""
    if name not in SIDES:
        return
    for node_input in roles.inputs[name]:
        preset = roles.presets.get(node_input)
        if preset is not None and preset.free is None:
            node_id, input_name = preset.choice
            shown = brief(current_value(Values(workflow), preset.choice))
            raise NoPlace(
                f"this workflow has no input for {name}: {preset.choice} ({shown}) decides the "
                "size; set that by overrides",
                [{"key": name, "node_id": node_id, "input": input_name, "value": shown}],
            )


def _ambiguous(workflow: Workflow, name: str, candidates: Sequence[Candidate]) -> Ambiguous:
    shown = []
    details = []
    for candidate in candidates:
        node_id, input_name = candidate.node_input
        shown.append(f"{candidate.node_input} ({brief(candidate.title)})")
        details.append(
            {
                "key": name,
                "node_id": node_id,
                "input": input_name,
                "title": candidate.title,
                "class_type": candidate.class_type,
                "value": workflow[node_id]["inputs"].get(input_name),
            }
        )
    return Ambiguous(
        f"{name} could belong to several nodes of this workflow: {listed(shown)}; "
        f"give one of these nodes the title '{name}', or use overrides with a key such as "
        f"'{candidates[0].node_input}'",
        details,
    )


def listed(words: Sequence[str]) -> str:
    """Join words with commas; of many, the first few and the number of the others."""
    more = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return ", ".join(words[:MAX_NAMED]) + more


def constraint_of(
    name: str,
    node_input: Input,
    limits: Constraints,
    declared: Mapping[str, Declared],
) -> InputConstraint:
    """Return what an input accepts as the value of a parameter.

    If the node's class is not installed, that is what the parameter accepts in any workflow.
    """
    found = limits.get(node_input)
    if found is None:
        found = InputConstraint.of([InputSpec(node_input.name, _type_of(name), required=False)])
    if name == "clip_skip":
        return found.negated()
    if name in declared:
        entry = declared[name]
        low = found.minimum if entry.minimum is None else entry.minimum
        high = found.maximum if entry.maximum is None else entry.maximum
        return replace(found, minimum=low, maximum=high)
    return found


def _type_of(name: str) -> str:
    if name in PARAMETER_INPUTS:
        return PARAMETER_INPUTS[name].types[0]
    return "STRING" if name in TEXT_SIDES else "*"


def current_value(values: Values, node_input: Input) -> Any:
    """Return the value that an input receives, computed if it is linked; None if not known."""
    value = values(node_input)
    return None if value is UNKNOWN else value


def leading_steps(values: Values, steps: Iterable[Input]) -> Input:
    """Return the steps input that a client means.

    It is the first stage's; if that has only a few steps, it is the longest stage's.
    """
    steps = list(steps)
    known = [node_input for node_input in steps if values.has(node_input)] or steps[:1]
    counts = [number(current_value(values, node_input)) or 0 for node_input in known]
    longest = max(counts)
    has_few = 0 < counts[0] < FEW_STEPS and longest >= 2 * counts[0]
    return known[counts.index(longest)] if has_few else known[0]


def preset_size(choice: Any) -> dict[str, int]:
    """Return the width and height that a choice names; empty if it names none."""
    found = SIZE_CHOICE.search(str(choice))
    return dict(zip(SIDES, map(int, found.groups()), strict=True)) if found else {}
