"""What declarations alone tell of a workflow, for checks without a running ComfyUI.

The rules are those of ``validate_inputs`` in ComfyUI's ``execution.py``. Where versions of ComfyUI differ, or a
class decides itself, the workflow passes.
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
        sources: which input files are there.
        remedies: finds what to do about missing files and choices.
    """

    def __init__(
        self, workflow: Workflow, defs: NodeDefs, sources: CheckContext, remedies: Remedies
    ) -> None:
        self._workflow = workflow
        self._defs = defs
        self._sources = sources
        self._remedies = remedies

    def problems(self, node_id: str) -> Iterator[tuple[str, Problem]]:
        """What is wrong with a node, by input."""
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
        is_pair = len(value) == 2
        if not is_pair or not isinstance(value[0], str) or value[0] not in self._workflow:
            return errors.broken_list(self._workflow, self._defs, spec, value)
        above, slot = value
        source = self._defs.get(self._workflow[above]["class_type"])
        if source is None:
            return None  # a finding of its own
        count = len(source.outputs)
        if not isinstance(slot, int) or not -count <= slot < count:
            return errors.broken_list(self._workflow, self._defs, spec, value)
        output = source.outputs[slot]
        wanted = str(list(spec.choices or ())) if spec.is_listed else spec.value_type
        if self._defs[class_type].takes_any_link or _fits(output, wanted):
            return None
        problem = f"{spec.name} is linked to output {slot} of node {above} ({source.name}), which gives {output}"
        return Problem("return_type_mismatch", problem, errors.link_remedy(spec))

    def _value_problem(self, class_type: str, spec: InputSpec, value: Any) -> Problem | None:
        try:
            value = CONVERSIONS[spec.type](value) if spec.type in CONVERSIONS else value
            outside = None if spec.has_custom_validation else _outside(spec, value)
        except (TypeError, ValueError, OverflowError):
            return errors.wrong_type(spec, value)
        if outside is not None:
            return outside
        if spec.has_custom_validation:
            names_a_file = spec.is_upload or (class_type, spec.name) in errors.NAMES_A_FILE
            is_there = not names_a_file or self._is_there(spec, value)
            return None if is_there else self._remedies.missing_input_file(spec.name, value)
        if not spec.is_listed or value in (spec.choices or ()) or is_model(value):
            return None
        return self._remedies.missing_choice(spec, value)

    def _is_there(self, spec: InputSpec, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return value in (spec.choices or ()) or self._sources.has_input(value)


def _fits(output: str, wanted: str) -> bool:
    """Whether ComfyUI lets an output of one type into an input of another (``validate_node_input``)."""
    if output == wanted or ANY_TYPE in (output, wanted):
        return True
    if output.startswith("[") or wanted.startswith("["):
        return wanted == "COMBO"  # a list of choices fits the same list, and the newer form
    outputs = {word.strip() for word in output.split(",")}
    return not outputs.isdisjoint(word.strip() for word in wanted.split(","))


def _outside(spec: InputSpec, value: Any) -> Problem | None:
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and value < low:
        return errors.too_small(spec, value)
    if high is not None and value > high:
        return errors.too_large(spec, value)
    return None
