"""Translates ComfyUI's validation errors into problems.

ComfyUI decides what is wrong. This module adds how to fix it: the type, the limit, the nearest
choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import brief
from comfy_worker.workflow.check.problems import (
    NO_OUTPUT,
    TEXT_LENGTH,
    Problem,
    outputs_remedy,
    shown,
)
from comfy_worker.workflow.check.remedies import Remedies
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs

__all__ = ["Translator"]

Error = Mapping[str, Any]

EXCEPTIONS = ("exception_during_validation", "exception_during_inner_validation")
NAMES_A_FILE = (("LoadLatent", "latent"),)
IN_COMFYUI = "open the workflow in ComfyUI and fix it there"


class Translator:
    """Translates the errors of one workflow.

    Args:
        workflow: the workflow that ComfyUI validated.
        defs: the node classes of this ComfyUI.
        remedies: finds what to do about missing files and choices.
    """

    def __init__(self, workflow: Workflow, defs: NodeDefs, remedies: Remedies) -> None:
        self._workflow = workflow
        self._defs = defs
        self._remedies = remedies

    def problems(self, node_id: str, errors: list[Error]) -> dict[str | None, Problem]:
        """Return what is wrong with a node, by input; None stands for the node itself."""
        found: dict[str | None, Problem] = {}
        refusals: set[str] = set()
        # An error about a file says more than one about another input, so it comes first.
        for error in sorted(errors, key=lambda error: not self._is_of_upload(node_id, error)):
            name = _input_name(error)
            if error.get("type") == "custom_validation_failed":
                # ComfyUI repeats the message of a class for each input that the class validates.
                message = _own_message(error)
                if message in refusals:
                    continue
                refusals.add(message)
            found.setdefault(name, self._problem(node_id, name, error))
        return found

    def of_workflow(self, error: Error | str) -> Problem:
        """Translate an error about the workflow, which names no node."""
        if isinstance(error, str):
            return Problem("invalid_prompt", brief(error, TEXT_LENGTH), IN_COMFYUI)
        if error.get("type") == "prompt_no_outputs":
            return NO_OUTPUT
        return Problem(str(error.get("type")), _message(error), IN_COMFYUI)

    def _is_of_upload(self, node_id: str, error: Error) -> bool:
        spec = self._spec(node_id, _input_name(error))
        return spec is not None and spec.is_upload

    def _spec(self, node_id: str, name: str | None) -> InputSpec | None:
        node = self._workflow[node_id]
        declared = self._defs.get(node["class_type"])
        return declared.spec(name, node["inputs"]) if declared and name is not None else None

    def _problem(self, node_id: str, name: str | None, error: Error) -> Problem:
        error_type = str(error.get("type"))
        if name is None:
            return self._other(node_id, name, error)
        if error_type == "undeclared_input":
            return undeclared_input(name, self._workflow[node_id]["class_type"])
        spec = self._spec(node_id, name)
        if spec is None and error_type == "required_input_missing":
            spec = InputSpec(name, "value", required=True)
        if spec is None:
            return self._other(node_id, name, error)
        value = self._workflow[node_id]["inputs"].get(name)
        if error_type in EXCEPTIONS:
            return self._exception(node_id, spec, value, error)
        if error_type == "return_type_mismatch":
            return self._mismatch(node_id, spec, value, error)
        if error_type in ("value_not_in_list", "custom_validation_failed"):
            return self._refused_value(node_id, spec, value, error)
        simple = _simple_problem(error_type, spec, value)
        return simple or self._other(node_id, name, error)

    def _refused_value(self, node_id: str, spec: InputSpec, value: Any, error: Error) -> Problem:
        class_type = self._workflow[node_id]["class_type"]
        if not isinstance(value, list) and names_file(class_type, spec):
            return self._remedies.missing_input_file(spec.name, value)
        if error.get("type") == "custom_validation_failed":
            return self._other(node_id, spec.name, error)
        if is_model(value):
            return self._remedies.missing_model(class_type, spec, value)
        return self._remedies.missing_choice(spec, value)

    def _mismatch(self, node_id: str, spec: InputSpec, value: Any, error: Error) -> Problem:
        if not is_node_link(self._workflow, value):
            return self._other(node_id, spec.name, error)
        class_type = self._workflow[value[0]]["class_type"]
        output = (error.get("extra_info") or {}).get("received_type")
        problem = wrong_output(spec, value, class_type, output)
        return Problem("return_type_mismatch", brief(problem, TEXT_LENGTH * 2), link_remedy(spec))

    def _exception(self, node_id: str, spec: InputSpec, value: Any, error: Error) -> Problem:
        """Translate an exception for a link that ComfyUI cannot follow or a bad value."""
        if isinstance(value, list):
            return broken_list(self._workflow, self._defs, spec, value)
        raised = (error.get("extra_info") or {}).get("exception_type")
        if raised in ("TypeError", "ValueError", "OverflowError"):
            return wrong_type(spec, value)
        return self._other(node_id, spec.name, error)

    def _other(self, node_id: str, name: str | None, error: Error) -> Problem:
        """Repeat ComfyUI's own message."""
        subject = self._workflow[node_id]["class_type"] if name is None else name
        problem = f"{brief(subject, TEXT_LENGTH)}: {_message(error)}"
        if error.get("type") == "dependency_cycle":
            return Problem("cycle", problem, "cut one of the links")
        return Problem(str(error.get("type")), problem, IN_COMFYUI)


def _simple_problem(error_type: str, spec: InputSpec, value: Any) -> Problem | None:
    """Return the problem of an error that its declaration explains; None for other errors."""
    if error_type == "required_input_missing":
        return missing_input(spec)
    if error_type == "bad_linked_input":
        return not_a_link(spec)
    if error_type == "invalid_input_type":
        return wrong_type(spec, value)
    if error_type == "value_smaller_than_min":
        return too_small(spec, value)
    if error_type == "value_bigger_than_max":
        return too_large(spec, value)
    return None


def missing_input(spec: InputSpec) -> Problem:
    """Return the problem of a required input that a node lacks."""
    # A socketless input is a widget of the editor, whatever its type. It takes no link.
    is_literal = spec.is_widget or bool(spec.options.get("socketless"))
    would_do = f"give it a {spec.value_type}" if is_literal else f"link a {spec.value_type} to it"
    return Problem("required_input_missing", f"{spec.name} is missing", would_do)


def undeclared_input(name: str, class_type: str) -> Problem:
    """Return the problem of a link under a name that the class does not have."""
    problem = f"{brief(name, TEXT_LENGTH)} is not an input of {brief(class_type, TEXT_LENGTH)}"
    return Problem("undeclared_input", problem, "remove it")


def not_a_link(spec: InputSpec) -> Problem:
    """Return the problem of a list that does not have two items."""
    problem = f"{spec.name} is a list that is not a link"
    return Problem("bad_linked_input", problem, "write a link as [node_id, slot]")


def wrong_type(spec: InputSpec, value: Any) -> Problem:
    """Return the problem of a literal that cannot be read as the type of its input."""
    problem = f"{spec.name} must be of type {spec.value_type}, not {shown(value)}"
    return Problem("invalid_input_type", problem, f"give it a {spec.value_type}")


def too_small(spec: InputSpec, value: Any) -> Problem:
    """Return the problem of a number below its range."""
    use = f"use {spec.options.get('min')} or more"
    return Problem("value_smaller_than_min", f"{spec.name} {shown(value)} is too small", use)


def too_large(spec: InputSpec, value: Any) -> Problem:
    """Return the problem of a number above its range."""
    use = f"use {spec.options.get('max')} or less"
    return Problem("value_bigger_than_max", f"{spec.name} {shown(value)} is too large", use)


def broken_list(workflow: Workflow, defs: NodeDefs, spec: InputSpec, value: list[Any]) -> Problem:
    """Return the problem of a list that ComfyUI takes for a link and cannot follow."""
    if len(value) != 2:
        return not_a_link(spec)
    above, slot = value
    if not isinstance(above, str) or above not in workflow:
        problem = f"{spec.name} is linked to node {shown(above)}, which is not there"
        return Problem("dangling_link", problem, link_remedy(spec))
    class_type = workflow[above]["class_type"]
    outputs = defs[class_type].outputs if class_type in defs else ()
    problem = (
        f"{spec.name} is linked to output {shown(slot)} of node {brief(above)}, which it lacks"
    )
    return Problem("bad_output_slot", problem, outputs_remedy(class_type, outputs))


def link_remedy(spec: InputSpec) -> str:
    """Return which output an input accepts."""
    return f"link it to an output of type {spec.value_type}"


def is_node_link(workflow: Workflow, value: Any) -> bool:
    """Return whether a value is a link to a node of the workflow."""
    is_pair = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
    return is_pair and value[0] in workflow


def wrong_output(spec: InputSpec, link: list[Any], class_type: str, output: Any) -> str:
    """Describe a link to an output whose type the input does not accept."""
    node_id, slot = link
    linked = f"output {slot} of node {node_id} ({class_type})"
    return f"{spec.name} is linked to {linked}, which gives {output}"


def names_file(class_type: str, spec: InputSpec) -> bool:
    """Return whether an input names a file in ComfyUI's input folder."""
    return spec.is_upload or (class_type, spec.name) in NAMES_A_FILE


def _input_name(error: Error) -> str | None:
    name = (error.get("extra_info") or {}).get("input_name")
    return name if isinstance(name, str) else None


def _own_message(error: Error) -> str:
    """Return the message of a class's own validation, without the name of the input."""
    return str(error.get("details")).removeprefix(str(_input_name(error)))


def _message(error: Error) -> str:
    details = error.get("details")
    message = str(error.get("message"))
    return brief(f"{message}: {details}" if details else message, TEXT_LENGTH * 2)
