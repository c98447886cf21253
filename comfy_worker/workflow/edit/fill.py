"""Writes the values of parameters into a workflow, with the changes that they require elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_worker.workflow.constraints import Constraints, InputConstraint
from comfy_worker.workflow.edit.parameters import (
    SIDES,
    Declared,
    constraint_of,
    current_value,
    inputs_of,
    leading_steps,
    preset_size,
)
from comfy_worker.workflow.graph import Input, Workflow, copied, number
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.placeholders import PLACEHOLDER, PLACEHOLDER_WORDS
from comfy_worker.workflow.roles.roles import Roles, StepRange
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.values import Values
from comfy_worker.workflow.walks import Check, never_ends

__all__ = ["fill"]

# A cell of a latent covers at least this many pixels, so it cannot represent a smaller change.
PIXELS_PER_CELL = 8
MOST_SEED = 2**64 - 1


def fill(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    values: Mapping[str, Any],
    declared: Mapping[str, Declared] | None = None,
    check: Check = never_ends,
) -> Workflow:
    """Write values of parameters into a copy of a workflow.

    Each value is written to all inputs of its parameter. ``steps`` means the leading stage: the
    first, or the longest if the first has only a few steps. The steps of the other stages, and the
    steps at which one stage hands over to the next, stay in proportion. With ``width`` and
    ``height``, the sizes to which later stages resize stay in proportion. The first seed input
    gets the seed; the others keep their distance to it. A choice that overrides the size is set to
    the choice that leaves the size free.

    Args:
        workflow: is not changed.
        roles: of this workflow.
        defs: the node classes of this ComfyUI.
        values: by parameter name; ``clip_skip`` counts layers from the end, from 1.
        declared: a template's further parameters; they take precedence over what was found.
        check: called repeatedly; may raise to stop the work on a large workflow.

    Returns:
        The filled copy.

    Raises:
        InvalidInput: a value has the wrong type.
        InvalidValue: a node does not accept the value.
        NoPlace: the workflow has no input for a parameter.
        Ambiguous: several inputs could be meant by a parameter, or several files by a name.
        ModelNotFound: a model file is not installed.
    """
    filler = _Filler(workflow, roles, TypedWorkflow(workflow, defs, check), declared or {})
    for name, value in values.items():
        filler.write(name, value)
    if "steps" in values:
        filler.move_splits(values)
    if not values.keys().isdisjoint(SIDES):
        filler.free_presets(values)
        filler.scale_sizes()
    return filler.filled


class _Filler:
    """Fills one copy of a workflow.

    Attributes:
        filled: the copy.
    """

    def __init__(
        self,
        workflow: Workflow,
        roles: Roles,
        graph: TypedWorkflow,
        declared: Mapping[str, Declared],
    ) -> None:
        self.filled = copied(workflow)
        self._workflow = workflow
        self._roles = roles
        self._declared = declared
        self._limits = Constraints(graph)
        self._before = Values(workflow, graph.check)

    def write(self, name: str, value: Any) -> None:
        """Write the value of one parameter to all its inputs."""
        node_inputs = inputs_of(self._workflow, self._roles, name, self._declared)
        leader = node_inputs[0]
        if name == "steps":
            leader = leading_steps(self._before, node_inputs)
        for node_input in node_inputs:
            constraint = constraint_of(name, node_input, self._limits, self._declared)
            accepted = constraint.checked(name, value)
            if name == "steps":
                accepted = self._proportional_steps(leader, node_input, accepted)
            elif name == "seed":
                accepted = self._distant_seed(leader, node_input, accepted, constraint)
            elif name == "clip_skip":
                accepted = -accepted
            _write(self.filled, node_input, name, accepted)

    def _number_before(self, node_input: Input) -> int | float | None:
        return number(current_value(self._before, node_input))

    def _proportional_steps(self, leader: Input, node_input: Input, steps: int) -> int:
        """Return the steps of one stage, in proportion to those of the leading stage."""
        old_leader, old = self._number_before(leader), self._number_before(node_input)
        if not old_leader or not old:
            return steps
        if old_leader < 0 or old < 0:
            return steps
        # Larger integers cannot be converted to a float.
        share = steps * old / old_leader if max(old, old_leader) < MOST_SEED else steps
        return max(1, round(share))

    def _distant_seed(
        self, first: Input, node_input: Input, seed: int, limits: InputConstraint
    ) -> int:
        """Return a seed that keeps its old distance to the first seed, within the node's range."""
        old_first, old = self._number_before(first), self._number_before(node_input)
        if not isinstance(old_first, int) or not isinstance(old, int):
            return seed
        low = int(limits.minimum or 0)
        high = MOST_SEED if limits.maximum is None else int(limits.maximum)
        return low + (seed + old - old_first - low) % (high - low + 1)

    def move_splits(self, values: Mapping[str, Any]) -> None:
        """Keep each hand-over between stages at the same fraction of the steps."""
        sent = {
            Input(entry.node, entry.input)
            for name, entry in self._declared.items()
            if name in values
        }
        now = Values(self.filled)
        for split in self._roles.step_ranges:
            if split.node_input not in sent:
                self._move_split(split, number(current_value(now, split.steps)))

    def _move_split(self, split: StepRange, new: int | float | None) -> None:
        cut, old = self._number_before(split.node_input), self._number_before(split.steps)
        if not isinstance(cut, int) or not isinstance(old, int) or not isinstance(new, int):
            return
        if not 0 < cut <= old:
            return  # the beginning of a stage, or an open end such as 10000
        # Each stage keeps at least one step.
        moved = new if cut == old else max(1, min(new - 1, round(cut * new / old)))
        _set(self.filled, split.node_input, moved)

    def free_presets(self, values: Iterable[str]) -> None:
        """Set the choices that override a sent size to the choice that leaves the size free.

        A side that was not sent keeps the value of the old choice.
        """
        sent = [side for side in SIDES if side in values and side not in self._declared]
        if not sent:
            return
        sides = {
            node_input: side for side in SIDES for node_input in self._roles.inputs.get(side, ())
        }
        now = Values(self.filled)
        for node_input, preset in self._roles.presets.items():
            if sides.get(node_input) in sent and preset.free is not None:
                _set(self.filled, preset.choice, preset.free)
        for node_input, side in sides.items():
            own = self._roles.presets.get(node_input)
            if own is None or side in sent or current_value(now, own.choice) != own.free:
                continue
            size = preset_size(current_value(self._before, own.choice))
            _set(self.filled, node_input, size.get(side, current_value(now, node_input)))

    def scale_sizes(self) -> None:
        """Scale the sizes to which a sampler's result is resized, as its own size was scaled."""
        now = Values(self.filled)
        for name in SIDES:
            node_inputs = self._roles.inputs.get(name, ())
            if not node_inputs:
                continue
            old = self._number_before(node_inputs[0])
            new = number(current_value(now, node_inputs[0]))
            if isinstance(old, int) and old and new is not None:
                later = dict.fromkeys(getattr(size, name) for size in self._roles.scaled_sizes)
                self._scale_inputs(later.keys() - set(node_inputs), old, new)

    def _scale_inputs(self, node_inputs: Iterable[Input], old: int, new: float) -> None:
        for node_input in node_inputs:
            size = self._number_before(node_input)
            if isinstance(size, int) and max(size, old) < MOST_SEED:
                scaled = round(size * new / old / PIXELS_PER_CELL) * PIXELS_PER_CELL
                constraint = self._limits.get(node_input) or InputConstraint()
                _set(self.filled, node_input, constraint.nearest(scaled))


def _write(workflow: Workflow, node_input: Input, name: str, value: Any) -> None:
    """Set an input; in a text with placeholders, replace only the placeholders of the parameter."""
    old = workflow[node_input.node_id]["inputs"].get(node_input.name)
    if isinstance(old, str) and isinstance(value, str):
        words = set(PLACEHOLDER.findall(old))
        own = {word for word in words if PLACEHOLDER_WORDS.get(word, word) == name}
        if own:
            value = PLACEHOLDER.sub(lambda found: value if found[1] in own else found[0], old)
    _set(workflow, node_input, value)


def _set(workflow: Workflow, node_input: Input, value: Any) -> None:
    workflow[node_input.node_id]["inputs"][node_input.name] = value
