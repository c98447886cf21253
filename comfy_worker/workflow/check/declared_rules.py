"""Checks a workflow by the declarations of its classes, without a running ComfyUI.

The rules are those of ``validate_inputs`` in ComfyUI's ``execution.py``. If versions of ComfyUI
differ, or a class validates its inputs itself, the workflow passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from comfy_worker.workflow.check import comfyui_errors as errors
from comfy_worker.workflow.check.links import unwrapped
from comfy_worker.workflow.check.problems import Problem
from comfy_worker.workflow.check.remedies import Remedies
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_files import CheckContext
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.node_defs import ANY_TYPE, InputSpec, NodeDefs

__all__ = ["DeclaredRules"]

CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}


class DeclaredRules:
    """Checks the inputs of nodes by what their classes declare.

    Args:
        workflow: as it would be queued.
        defs: the declarations.
        context: which input files there are.
        remedies: finds what to do about missing files and choices.
    """

    def __init__(
        self, workflow: Workflow, defs: NodeDefs, context: CheckContext, remedies: Remedies
    ) -> None:
        self._workflow = workflow
        self._defs = defs
        self._context = context
        self._remedies = remedies

    def problems(self, node_id: str) -> Iterator[tuple[str, Problem]]:
        """Yield what is wrong with a node, by input."""
        node = self._workflow[node_id]
        declared = self._defs.get(node["class_type"])
        specs = declared.live_inputs(node["inputs"]) if declared else {}
        for spec in specs.values():
            problem = self._problem(node["class_type"], spec, node["inputs"])
            if problem is not None:
                yield spec.name, problem

    def _problem(self, class_type: str, spec: InputSpec, values: dict[str, Any]) -> Problem | None:
        if spec.name not in values:
            return errors.missing_input(spec) if spec.required else None
        value = values[spec.name]
        if isinstance(value, list):
            return self._link_problem(class_type, spec, value)
        return self._value_problem(class_type, spec, unwrapped(value))

    def _link_problem(self, class_type: str, spec: InputSpec, value: list[Any]) -> Problem | None:
        if not errors.is_node_link(self._workflow, value):
            return errors.broken_list(self._workflow, self._defs, spec, value)
        above, slot = value
        source = self._defs.get(self._workflow[above]["class_type"])
        if source is None:
            return None  # the missing class is a finding of its own
        count = len(source.outputs)
        if not isinstance(slot, int) or not -count <= slot < count:
            return errors.broken_list(self._workflow, self._defs, spec, value)
        output = source.outputs[slot]
        accepted = str(list(spec.choices or ())) if spec.is_listed else spec.value_type
        if self._defs[class_type].takes_any_link or _fits(output, accepted):
            return None
        problem = errors.wrong_output(spec, value, source.name, output)
        return Problem("return_type_mismatch", problem, errors.link_remedy(spec))

    def _value_problem(self, class_type: str, spec: InputSpec, value: Any) -> Problem | None:
        try:
            if spec.type in CONVERSIONS:
                value = CONVERSIONS[spec.type](value)
            outside = None if spec.has_custom_validation else _outside(spec, value)
        except (TypeError, ValueError, OverflowError):
            return errors.wrong_type(spec, value)
        if outside is not None:
            return outside
        if spec.has_custom_validation:
            if not errors.names_file(class_type, spec) or self._is_present(spec, value):
                return None
            return self._remedies.missing_input_file(spec.name, value)
        if not spec.is_listed or value in (spec.choices or ()) or is_model(value):
            return None
        return self._remedies.missing_choice(spec, value)

    def _is_present(self, spec: InputSpec, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return value in (spec.choices or ()) or self._context.has_input(value)


def _fits(output: str, accepted: str) -> bool:
    """Return whether an input accepts an output of a type (``validate_node_input`` in ComfyUI)."""
    if output == accepted or ANY_TYPE in (output, accepted):
        return True
    if output.startswith("[") or accepted.startswith("["):
        return accepted == "COMBO"  # a list of choices fits the same list, and the newer form
    outputs = {word.strip() for word in output.split(",")}
    return not outputs.isdisjoint(word.strip() for word in accepted.split(","))


def _outside(spec: InputSpec, value: Any) -> Problem | None:
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and value < low:
        return errors.too_small(spec, value)
    if high is not None and value > high:
        return errors.too_large(spec, value)
    return None
