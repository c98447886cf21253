"""Checks a value before it is set in a workflow: its type, range, step and choices.

The rules are the declarations of every input that the value reaches. ComfyUI checks the workflow
itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import InvalidInput, InvalidValue, brief
from comfy_worker.nearest import nearest
from comfy_worker.workflow.graph import Input, number
from comfy_worker.workflow.literals import resolve_live_literal
from comfy_worker.workflow.model_names import is_model, match
from comfy_worker.workflow.node_defs import InputSpec
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["Constraints", "InputConstraint"]

JSON_TYPES = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BOOLEAN": "boolean"}
NUMBERS = ("integer", "number")
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
}

# The kind of model file that an input names: a key of model_names.FOLDERS.
MODEL_FILES = {
    "ckpt_name": "checkpoint",
    "unet_name": "diffusion model",
    "vae_name": "vae",
    "lora_name": "lora",
    "control_net_name": "controlnet",
    "clip_name": "text encoder",
    "clip_name1": "text encoder",
    "clip_name2": "text encoder",
    "clip_name3": "text encoder",
    "clip_name4": "text encoder",
}


@dataclass(frozen=True)
class InputConstraint:
    """The values that one input accepts.

    Attributes:
        type: a JSON type; None if nothing is declared.
        minimum: the smallest number, or None.
        maximum: the largest number, or None.
        steps: pairs ``(start, step)``; an integer must be a multiple of the step away from the
            start of every pair.
        choices: all accepted values, or None.
        files: the kind of model file that the choices are, if the input's name says so.
    """

    type: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[tuple[int, int], ...] = ()
    choices: tuple[Any, ...] | None = None
    files: str | None = None

    @classmethod
    def of(cls, specs: Iterable[InputSpec]) -> InputConstraint:
        """Return the values that all of these inputs accept."""
        constraint = cls()
        for spec in specs:
            constraint = constraint.narrowed(spec)
        return constraint

    def narrowed(self, spec: InputSpec) -> InputConstraint:
        """Return the values that one more input accepts too; the first input's type counts."""
        low = _number(spec.options.get("min"))
        high = _number(spec.options.get("max"))
        own_type = JSON_TYPES.get(spec.value_type) or ("string" if spec.is_upload else None)
        is_open = spec.is_remote or spec.is_upload or spec.options.get("multiselect")
        return InputConstraint(
            type=self.type or own_type,
            minimum=_stricter(max, self.minimum, low),
            maximum=_stricter(min, self.maximum, high),
            steps=self._steps_with(spec, low),
            choices=self.choices if spec.choices is None or is_open else spec.choices,
            files=MODEL_FILES.get(spec.name, self.files),
        )

    def _steps_with(self, spec: InputSpec, low: float | None) -> tuple[tuple[int, int], ...]:
        steps = set(self.steps)
        step = _number(spec.options.get("step"))
        if spec.type == "INT" and step:
            steps.add((int(low or 0), int(step)))
        return tuple(sorted(pair for pair in steps if pair[1] > 1))

    def negated(self) -> InputConstraint:
        """Return the constraint of the same number with the other sign."""
        low = None if self.maximum is None else -self.maximum
        high = None if self.minimum is None else -self.minimum
        return InputConstraint(self.type, low, high)

    def checked(self, key: str, value: Any) -> Any:
        """Check a value, and return it in the form that the input accepts.

        Args:
            key: the client's name for the value, for errors.
            value: the client's value.

        Returns:
            The value: ``20.0`` as an integer if the input takes one, ``"0.5"`` as a number, a model
            file by its full name.

        Raises:
            InvalidInput: the value has the wrong type.
            InvalidValue: the value is out of range, not on a step, or not one of the choices.
            ModelNotFound: no installed file has the name.
            Ambiguous: several installed files have the name.
        """
        if self.choices is not None:
            return self._chosen(key, value)
        if self.type in NUMBERS:
            value = _as_number(value, self.type)
        if self.type is not None and not self._has_type(value):
            raise self._wrong_type(key, value)
        if self.type in NUMBERS:
            near = self._nearest(value)
            if near != [value]:
                raise self._refusal(key, value, near)
        return value

    def _has_type(self, value: Any) -> bool:
        if isinstance(value, bool):
            return self.type == "boolean"
        return isinstance(value, PYTHON_TYPES[self.type or ""])

    def _wrong_type(self, key: str, value: Any) -> InvalidInput:
        wanted = "text" if self.type == "string" else f"of type {self.type}"
        shown = "null" if value is None else brief(repr(value))
        return InvalidInput(
            f"{key} must be {wanted}, not {shown}", [{"key": key, "type": self.type}]
        )

    def to_schema(self) -> dict[str, Any]:
        """Return the constraint as keywords of JSON Schema."""
        schema: dict[str, Any] = {
            "type": self.type,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }
        if self.steps and all(start % step == 0 for start, step in self.steps):
            schema["multipleOf"] = self._span()
        elif self.steps:  # JSON Schema has no word for this
            schema["steps"] = [list(pair) for pair in self.steps]
        if self.choices is not None:
            are_texts = all(isinstance(choice, str) for choice in self.choices)
            schema["type"] = "string" if are_texts else None
            schema["enum"] = list(self.choices)
        return {word: value for word, value in schema.items() if value is not None}

    def nearest(self, value: float) -> float:
        """Return the accepted number that is nearest to a finite number; of two the larger."""
        near = self._nearest(value)
        return min(near, key=lambda number: (abs(number - value), -number), default=value)

    def _nearest(self, value: float) -> list[float]:
        """Return the nearest accepted numbers below and above; for an accepted number, itself."""
        if not math.isfinite(value):
            return []
        value = self._within(value)
        if not self.steps:
            return [value]
        span, start = self._span(), int(value)
        low = next(filter(self._is_on_step, range(start, start - span, -1)), start)
        high = next(filter(self._is_on_step, range(start, start + span)), start)
        return [number for number in dict.fromkeys((low, high)) if self._within(number) == number]

    def _within(self, value: float) -> float:
        """Return the value, or the bound that it exceeds."""
        if self.minimum is not None:
            value = max(value, self.minimum)
        if self.maximum is not None:
            value = min(value, self.maximum)
        return value

    def _span(self) -> int:
        return math.lcm(*(step for _, step in self.steps))

    def _is_on_step(self, value: int) -> bool:
        return all((value - start) % step == 0 for start, step in self.steps)

    def _refusal(self, key: str, value: float, near: list[float]) -> InvalidValue:
        bounds = [] if self.minimum is None else [f"at least {self.minimum}"]
        bounds += [] if self.maximum is None else [f"at most {self.maximum}"]
        rule = " and ".join(bounds) or "a finite number"
        rule += f", in steps of {self._span()}" if self.steps else ""
        use = f"; use {' or '.join(map(str, near))}" if near else ""
        detail = {"key": key, "value": str(value), "minimum": self.minimum, "maximum": self.maximum}
        return InvalidValue(
            f"{key} must be {rule}, not {value}{use}", [{**detail, "nearest": near}]
        )

    def _chosen(self, key: str, value: Any) -> Any:
        choices = self.choices or ()
        # For Python, True equals 1.
        is_comparable = not isinstance(value, bool) or bool in map(type, choices)
        if value in choices and is_comparable:
            return value
        texts = [str(choice) for choice in choices]
        is_file = self.files is not None or any(map(is_model, choices))
        if is_file and isinstance(value, str):
            return match(value, texts, self.files or "model file")
        near = nearest(str(value), texts)
        use = " or ".join(near or texts[:8]) or "another node"
        raise InvalidValue(
            f"{key} {brief(repr(value))} is not one of the choices; use {use}",
            [{"key": key, "value": str(value), "nearest": near, "choices": list(choices)}],
        )


def _as_number(value: Any, json_type: str | None) -> Any:
    """Return a number, or the number in a text, as its type; any other value as it is."""
    if isinstance(value, str) and "_" not in value:  # Python reads "1_000" as 1000
        found = number(value)
        value = value if found is None else found
    if json_type == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _stricter(
    choose: Callable[[float, float], float], bound: float | None, other: float | None
) -> float | None:
    """Return the stricter of two bounds; either may be None."""
    if bound is None:
        return other
    return bound if other is None else choose(bound, other)


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


class Constraints:
    """The constraints of a workflow's literals: of their own inputs, and of those they reach.

    A job asks for a few inputs of many, so each is made when it is asked for.

    Args:
        graph: the workflow.
    """

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        # By literal, the declarations of the other inputs that it reaches.
        self._passed: dict[Input, list[InputSpec]] = {}
        # The inputs whose literal is written elsewhere.
        self._reached: set[Input] = set()
        for node_id in graph.workflow:
            links = graph.links(node_id)
            for node_input in graph.widgets(node_id) if links else ():
                if node_input in links:
                    self._add_linked(node_input)

    def _add_linked(self, node_input: Input) -> None:
        spec = self._graph.spec(node_input)
        literal = resolve_live_literal(self._graph, node_input)
        # A computed input has no literal, but it may get one that replaces its link.
        if spec is not None and literal is not None and literal != node_input:
            self._passed.setdefault(literal, []).append(spec)
            self._reached.add(node_input)

    def get(self, node_input: Input) -> InputConstraint | None:
        """Return what an input accepts; None if no declaration says it."""
        specs = list(self._passed.get(node_input, ()))
        own = self._own(node_input)
        if own is not None:
            specs.insert(0, own)
        return InputConstraint.of(specs) if specs else None

    def _own(self, node_input: Input) -> InputSpec | None:
        graph = self._graph
        if node_input in self._reached or node_input.node_id not in graph.workflow:
            return None
        is_widget = node_input in graph.widgets(node_input.node_id)
        return graph.spec(node_input) if is_widget else None
