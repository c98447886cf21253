"""Finds all errors that ComfyUI's own validation has about a workflow. Nothing is queued.

``validate_prompt`` stops at the first unknown class, skips the rest of a node when an exception is
raised, and drops an output with an error if another output is right. Therefore a workflow that it
does not accept is validated again here, node by node, with ComfyUI's ``validate_inputs``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import execution
import nodes
from server import PromptServer

__all__ = ["validate_workflow", "validated_inputs"]

Workflow = dict[str, Any]
Error = dict[str, Any]

# A link to this node fits every input. It replaces a link that leads nowhere, so that the other
# inputs are checked.
STAND_IN = "comfy_worker stand-in"
STAND_IN_LINK = [STAND_IN, 0]
# A client reads only the first findings.
MAX_ERRORS = 500
# How often inputs may be validated separately, to find the one for which ComfyUI raises.
MAX_TRIES = 2000
# ComfyUI validates by recursion. With a longer chain it overflows its stack, after seconds.
MAX_DEPTH = 400
# ComfyUI repeats every error for each output. With more outputs that takes seconds.
MAX_OUTPUTS = 50
# After so many nodes, ComfyUI may answer other requests.
NODES_AT_ONCE = 50

_one_at_a_time = asyncio.Lock()


class AnyType(str):
    """A type that is equal to every other type."""

    def __ne__(self, _other: object) -> bool:
        return False

    __eq__ = str.__eq__
    __hash__ = str.__hash__


class StandIn:
    """A node whose output fits any input."""

    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "nothing"
    CATEGORY = "comfy_worker"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Declare no inputs."""
        return {"required": {}}


async def validate_workflow(workflow: Workflow) -> dict[str, Any]:
    """Validate a workflow.

    Returns:
        ``error`` and ``node_errors``, as in ComfyUI's answer to a refused ``POST /prompt``. Both
        are empty if ComfyUI accepts all of the workflow.
    """
    replace_classes = getattr(PromptServer.instance, "node_replace_manager", None)
    if replace_classes is not None:
        for node in workflow.values():
            node.setdefault("_meta", {})  # ComfyUI fails if it is missing
        replace_classes.apply_replacements(workflow)
    outputs = [node_id for node_id in workflow if _is_output(workflow, node_id)]
    needed, obstacle = _needed(workflow, outputs)
    answer = await _validated(workflow, outputs, needed, obstacle)
    return {**answer, "node_errors": _with_undeclared(workflow, needed, answer["node_errors"])}


async def _validated(
    workflow: Workflow, outputs: list[str], needed: list[str], obstacle: Error | None
) -> dict[str, Any]:
    """Return ComfyUI's own errors, for all nodes at once or node by node."""
    is_simple = obstacle is None and len(outputs) <= MAX_OUTPUTS
    answer: dict[str, Any] = {"error": obstacle or None}
    if is_simple:
        answer = await _validate_prompt(workflow, outputs)
        if not answer["error"]:
            return answer
    try:
        async with _one_at_a_time:
            found = await _Validation(workflow).errors(needed)
    except (AttributeError, LookupError, TypeError) as unfit:
        logging.warning("comfy_worker_nodes: cannot use this ComfyUI's validation: %s", unfit)
        found = {}
    if not found and obstacle is None and not is_simple:
        return await _validate_prompt(workflow, outputs)
    return {"error": answer["error"], "node_errors": found or answer.get("node_errors") or {}}


async def _validate_prompt(workflow: Workflow, outputs: list[str]) -> dict[str, Any]:
    """Run ComfyUI's own validation.

    An output that ComfyUI would drop without a message is an error.
    """
    prompt = {
        node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in workflow.items()
    }
    accepted, error, kept, node_errors = await execution.validate_prompt("", prompt, None)
    dropped = sorted(set(outputs) - set(kept))
    if accepted and (dropped or node_errors):
        message = "ComfyUI would drop output nodes"
        error = {"type": "dropped_output", "message": message, "details": ", ".join(dropped)}
    return {"error": error, "node_errors": node_errors}


def _with_undeclared(
    workflow: Workflow, node_ids: list[str], node_errors: Mapping[str, Any]
) -> dict[str, Any]:
    """Add an error for each link that a node cannot take.

    ComfyUI validates declared inputs only. It follows the other links too, and passes their values
    to the node's function, which raises a ``TypeError``.
    """
    found = dict(node_errors)
    count = 0
    for node_id in node_ids:
        class_type = workflow[node_id].get("class_type")
        node_class = nodes.NODE_CLASS_MAPPINGS.get(class_type)
        undeclared = _undeclared(node_class, _linked(workflow, node_id))[: MAX_ERRORS - count]
        if undeclared:
            count += len(undeclared)
            entry = found.get(node_id) or {"class_type": class_type, "dependent_outputs": []}
            errors = [*(entry.get("errors") or ()), *map(_not_an_input, undeclared)]
            found[node_id] = {**entry, "errors": errors}
    return found


def _linked(workflow: Workflow, node_id: str) -> list[str]:
    """Return the names of a node's inputs whose links ComfyUI follows."""
    names = []
    for name, value in workflow[node_id]["inputs"].items():
        if _is_link(value) and isinstance(value[1], (int, float)) and value[0] in workflow:
            names.append(name)
    return names


def _undeclared(node_class: Any, names: list[str]) -> list[str]:
    """Return the names that are not inputs of a class; none if that is not certain."""
    if not names or not inspect.isclass(node_class):
        return []
    is_v3 = issubclass(node_class, getattr(execution, "_ComfyNodeInternal", ()))
    function_name = "execute" if is_v3 else getattr(node_class, "FUNCTION", None)
    function = getattr(node_class, str(function_name), None)
    try:
        # A wrapper may take more than the function that it wraps.
        signature = inspect.signature(function, follow_wrapped=False)  # type: ignore[arg-type]
        parameters = signature.parameters
    except (TypeError, ValueError):
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    # A name with a dot is a part of an input that grows with its values.
    unknown = [name for name in names if name not in parameters and "." not in name]
    return _not_declared(node_class, unknown) if unknown else []


def _not_declared(node_class: Any, names: list[str]) -> list[str]:
    """Return the names that a class does not declare; none if one of its inputs grows."""
    try:
        declared = node_class.INPUT_TYPES()
        groups = [declared.get(group) for group in ("required", "optional", "hidden")]
        # Some packs' groups are empty and yet hold every name, so `or {}` would be wrong.
        groups = [group for group in groups if group is not None]
        for group in groups:
            if any(_grows(spec) for spec in group.values()):
                return []
        for group in groups:
            names = [name for name in names if name not in group]
        return names
    except Exception:  # noqa: BLE001 (a class of a pack may raise anything)
        return []


def _grows(spec: Any) -> bool:
    """Return whether the parts of an input depend on its values."""
    value_type = spec[0] if isinstance(spec, (list, tuple)) and spec else None
    is_dynamic = isinstance(value_type, str) and value_type.startswith("COMFY_")
    return is_dynamic and value_type not in ("COMFY_MATCHTYPE_V3", "COMFY_MULTITYPED_V3")


def _not_an_input(name: str) -> Error:
    return {
        "type": "undeclared_input",
        "message": "The class has no such input",
        "details": name,
        "extra_info": {"input_name": name},
    }


def _is_output(workflow: Workflow, node_id: str) -> bool:
    node_class = nodes.NODE_CLASS_MAPPINGS.get(workflow[node_id].get("class_type"))
    return getattr(node_class, "OUTPUT_NODE", False) is True


def _needed(workflow: Workflow, outputs: list[str]) -> tuple[list[str], Error | None]:
    """Return the nodes that the outputs need, and why ComfyUI cannot validate all of them at once.

    The reason is None if ComfyUI can. It is empty if the workflow may be right, but a chain of
    nodes is too long for the recursion.
    """
    obstacle = _unknown_class(workflow)
    done: dict[str, None] = {}
    for output in outputs:
        # The nodes between the output and the current node, with the sources still to follow.
        path = {} if output in done else {output: _sources(workflow, output)}
        while path:
            node_id = next(reversed(path))
            source = next(path[node_id], None)
            if source is None:
                done[node_id] = None
                del path[node_id]
            elif source in path:
                obstacle = obstacle or _obstacle("dependency_cycle", node_id)
            elif source not in done:
                path[source] = _sources(workflow, source)
                if len(path) > MAX_DEPTH and obstacle is None:
                    obstacle = {}
    return list(done), obstacle


def _unknown_class(workflow: Workflow) -> Error | None:
    for node_id, node in workflow.items():
        if node.get("class_type") not in nodes.NODE_CLASS_MAPPINGS:
            return _obstacle("missing_node_type", node_id)
    return None


def _obstacle(error_type: str, node_id: str) -> Error:
    messages = {
        "missing_node_type": "Node not found",
        "dependency_cycle": "Dependency cycle detected",
    }
    return {
        "type": error_type,
        "message": messages[error_type],
        "details": f"node {node_id}",
        "extra_info": {},
    }


def _sources(workflow: Workflow, node_id: str) -> Iterator[str]:
    for value in workflow[node_id]["inputs"].values():
        if _is_link(value) and value[0] in workflow:
            yield value[0]


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


class _Validation:
    """Validates nodes one by one; errors of one node do not affect another."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._prompt = {**workflow, STAND_IN: {"class_type": STAND_IN, "inputs": {}}}
        self._validated: dict[str, tuple[bool, list[Error], str]] = {}
        for node_id in self._prompt:
            self._validated[node_id] = (True, [], node_id)
        self._tries = MAX_TRIES
        self._raised: Exception = Exception("too many tries")

    async def errors(self, node_ids: list[str]) -> dict[str, Any]:
        """Return, by node id, the errors that ComfyUI finds in the node's inputs."""
        found: dict[str, Any] = {}
        count = 0
        nodes.NODE_CLASS_MAPPINGS[STAND_IN] = StandIn
        try:
            for number, node_id in enumerate(node_ids):
                if number % NODES_AT_ONCE == 0:
                    await asyncio.sleep(0)
                class_type = self._workflow[node_id]["class_type"]
                if class_type in nodes.NODE_CLASS_MAPPINGS and count < MAX_ERRORS:
                    errors = await self._errors_of(node_id)
                    count += len(errors)
                    if errors:
                        found[node_id] = {
                            "class_type": class_type,
                            "errors": errors,
                            "dependent_outputs": [],
                        }
        finally:
            del nodes.NODE_CLASS_MAPPINGS[STAND_IN]
        return found

    async def _errors_of(self, node_id: str) -> list[Error]:
        values = self._workflow[node_id]["inputs"]
        # The worker reports these links itself. Here they must not hide other errors.
        unresolved = {name for name, value in values.items() if self._is_unresolved(node_id, value)}
        inputs = {**values, **dict.fromkeys(unresolved, STAND_IN_LINK)}
        try:
            errors = await self._validate(node_id, inputs)
        except Exception as error:  # noqa: BLE001 (a class's own validation may raise anything)
            errors = await self._errors_one_by_one(node_id, inputs, error)
        return [
            error for error in errors if error["extra_info"].get("input_name") not in unresolved
        ]

    def _is_unresolved(self, node_id: str, value: Any) -> bool:
        if not _is_link(value):
            return False
        source = self._workflow.get(value[0])
        if source is None or value[0] == node_id:
            return True
        return source.get("class_type") not in nodes.NODE_CLASS_MAPPINGS

    async def _validate(self, node_id: str, inputs: Mapping[str, Any]) -> list[Error]:
        """Return ComfyUI's errors for a node with these inputs.

        An exception of ComfyUI is not caught.
        """
        self._prompt[node_id] = {**self._workflow[node_id], "inputs": dict(inputs)}
        del self._validated[node_id]
        try:
            result = await execution.validate_inputs("", self._prompt, node_id, self._validated)
        finally:
            self._validated[node_id] = (True, [], node_id)
            self._prompt[node_id] = self._workflow[node_id]
        errors: list[Error] = result[1]
        return [_short(error) for error in errors]

    async def _errors_one_by_one(
        self, node_id: str, inputs: Mapping[str, Any], raised: Exception
    ) -> list[Error]:
        """Find a node's errors if ComfyUI raises: the inputs that cause it, then other errors."""
        node_class = nodes.NODE_CLASS_MAPPINGS[self._workflow[node_id]["class_type"]]
        required, declared = _declared_inputs(node_class, inputs)
        missing = [name for name in required if name not in inputs]
        # ComfyUI ignores other inputs, and a client may send any number of them.
        inputs = {name: inputs[name] for name in declared if name in inputs}
        own = [name for name in validated_inputs(node_class) if name in inputs]
        kept: dict[str, Any] = dict.fromkeys([*inputs, *missing], STAND_IN_LINK)
        errors = await self._try(node_id, {**kept, **{name: inputs[name] for name in own}})
        if errors is None:
            errors = await self._try(node_id, kept)
        else:
            kept |= {name: inputs[name] for name in own}
        found = [_missing(name) for name in missing]
        if errors is None:
            # The class raises whatever it receives. Its exception says most if nothing is missing.
            name = own[0] if len(own) == 1 else None
            return found or [_raised(name, inputs.get(name or ""), raised)]
        # `format` before `format.bit_depth`, which is declared only if `format` has its value.
        for name in sorted(inputs, key=lambda name: name.count(".")):
            trial = {**kept, name: inputs[name]}
            tried = await self._try(node_id, trial)
            if tried is not None:
                kept, errors = trial, tried
            elif self._tries > 0:
                found.append(_raised(name, inputs[name], self._raised))
        return [*errors, *found]

    async def _try(self, node_id: str, inputs: Mapping[str, Any]) -> list[Error] | None:
        """Return ComfyUI's errors for these inputs; None if it raises an exception."""
        self._tries -= 1
        if self._tries < 0:
            return None
        try:
            return await self._validate(node_id, inputs)
        except Exception as error:  # noqa: BLE001 (likewise)
            self._raised = error
            return None


def validated_inputs(node_class: type) -> list[str]:
    """Return the names of the inputs that a class validates itself.

    ``*`` stands for all inputs, ``input_types`` for the types of the links.
    """
    function = getattr(node_class, "VALIDATE_INPUTS", None)
    real_override = getattr(execution, "first_real_override", None)
    if real_override and issubclass(node_class, getattr(execution, "_ComfyNodeInternal", ())):
        function = real_override(node_class, "validate_inputs")
    if function is None:
        return []
    found = inspect.getfullargspec(function)
    return [*found.args, *(["*"] if found.varkw else [])]


def _declared_inputs(node_class: Any, inputs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return a node's required inputs and all its inputs.

    Includes the inputs that the values of other inputs add.
    """
    declared = node_class.INPUT_TYPES()
    dynamic: Any = getattr(execution, "_io", None)
    if hasattr(dynamic, "get_finalized_class_inputs") and issubclass(
        node_class, execution._ComfyNodeInternal
    ):
        declared = dynamic.get_finalized_class_inputs(declared, dict(inputs))[0]
    required = list(declared.get("required") or ())
    return required, [*required, *(declared.get("optional") or ())]


def _short(error: Error) -> Error:
    """Copy an error without the data that the worker already has, such as a list of all files."""
    extra = error.get("extra_info") or {}
    kept = (
        "input_name",
        "received_value",
        "received_type",
        "linked_node",
        "exception_type",
        "node_id",
    )
    return {**error, "extra_info": {word: extra[word] for word in kept if word in extra}}


def _missing(name: str) -> Error:
    return {
        "type": "required_input_missing",
        "message": "Required input is missing",
        "details": name,
        "extra_info": {"input_name": name},
    }


def _raised(name: str | None, value: Any, error: Exception) -> Error:
    return {
        "type": "exception_during_validation",
        "message": "Exception when validating node",
        "details": f"{type(error).__name__}: {error}",
        "extra_info": {
            "input_name": name,
            "received_value": value,
            "exception_type": type(error).__name__,
        },
    }
