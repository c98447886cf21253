"""What a place in a workflow takes, by the declarations of every input that its literal reaches.

Owns the check of one value: its type, range, step, and list of choices. Knows no parameter's meaning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import InvalidInput, InvalidValue, brief
from comfy_worker.nearest import nearest
from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.model_names import is_model, match
from comfy_worker.workflow.node_defs import InputSpec
from comfy_worker.workflow.tracing import Graph, live_literal

__all__ = ["Limits", "limits_by_place"]

JSON_TYPES = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BOOLEAN": "boolean"}
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
}

# What kind of model file an input names, in the words of names.FOLDERS.
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
class Limits:
    """What one place takes.

    Attributes:
        type: a JSON type; None where nothing is declared.
        minimum: the smallest number, or None.
        maximum: the largest number, or None.
        steps: pairs ``(start, step)``; an integer must lie whole steps from each start.
        choices: all that it takes, or None.
        files: the kind of model file that the choices are, where the input's name tells.
    """

    type: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[tuple[int, int], ...] = ()
    choices: tuple[Any, ...] | None = None
    files: str | None = None

    @classmethod
    def of(cls, specs: Iterable[InputSpec]) -> Limits:
        """What all of some inputs take."""
        limits = cls()
        for spec in specs:
            limits = limits.narrowed(spec)
        return limits

    def narrowed(self, spec: InputSpec) -> Limits:
        """The limits with those of one more input; the first one's type counts."""
        low, high, step = (_number(spec.options.get(word)) for word in ("min", "max", "step"))
        steps = {*self.steps, (int(low or 0), int(step))} if spec.type == "INT" and step else set(self.steps)
        is_open = spec.options.get("remote") or spec.options.get("multiselect")
        is_upload = any(word.endswith("_upload") for word in spec.options)
        return Limits(
            type=self.type or JSON_TYPES.get(spec.type) or ("string" if is_upload else None),
            minimum=low if self.minimum is None else self.minimum if low is None else max(low, self.minimum),
            maximum=high if self.maximum is None else self.maximum if high is None else min(high, self.maximum),
            steps=tuple(sorted(pair for pair in steps if pair[1] > 1)),
            choices=self.choices if spec.choices is None or is_open or is_upload else spec.choices,
            files=MODEL_FILES.get(spec.name, self.files),
        )

    def negated(self) -> Limits:
        """The limits of the number with its sign changed."""
        low = None if self.maximum is None else -self.maximum
        high = None if self.minimum is None else -self.minimum
        return Limits(self.type, low, high)

    def checked(self, key: str, value: Any) -> Any:
        """The value as the place takes it.

        Args:
            key: what the client calls it.
            value: what the client gave.

        Returns:
            The value; a whole number given as ``20.0`` as an integer, a model file by its full name.

        Raises:
            InvalidInput: of the wrong type.
            InvalidValue: out of range, off the step, or none of the choices.
            ModelNotFound: no installed file fits the name.
            Ambiguous: several do.
        """
        if self.choices is not None:
            return self._chosen(key, value)
        if self.type == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.type is not None:
            is_bool = isinstance(value, bool)
            if not isinstance(value, PYTHON_TYPES[self.type]) or is_bool != (self.type == "boolean"):
                kind = "text" if self.type == "string" else f"of type {self.type}"
                raise InvalidInput(
                    f"{key} must be {kind}, not {'null' if value is None else brief(repr(value))}",
                    [{"key": key, "type": self.type}],
                )
        if self.type in {"integer", "number"} and (nearest := self._nearest(value)) != [value]:
            raise self._refusal(key, value, nearest)
        return value

    def to_schema(self) -> dict[str, Any]:
        """The same as keywords of JSON Schema."""
        schema: dict[str, Any] = {"type": self.type, "minimum": self.minimum, "maximum": self.maximum}
        if self.steps and all(start % step == 0 for start, step in self.steps):
            schema["multipleOf"] = self._span()
        if self.choices is not None:
            schema |= {"type": "string" if all(isinstance(one, str) for one in self.choices) else None}
            schema["enum"] = list(self.choices)
        return {word: value for word, value in schema.items() if value is not None}

    def nearest(self, value: float) -> float:
        """The number nearest to a finite one that the place takes, the larger of two."""
        return min(self._nearest(value), key=lambda one: (abs(one - value), -one), default=value)

    def _nearest(self, value: float) -> list[float]:
        """The numbers next to one that the place takes: below and above, or the one alone where it takes that."""
        if not math.isfinite(value):
            return []
        value = value if self.minimum is None else max(value, self.minimum)
        value = value if self.maximum is None else min(value, self.maximum)
        if not self.steps:
            return [value]
        span, start = self._span(), int(value)
        low = next((start - back for back in range(span) if self._is_on_step(start - back)), start)
        high = next((start + on for on in range(span) if self._is_on_step(start + on)), start)
        within = [one for one in dict.fromkeys((low, high)) if self.minimum is None or one >= self.minimum]
        return [one for one in within if self.maximum is None or one <= self.maximum]

    def _span(self) -> int:
        return math.lcm(*(step for _, step in self.steps))

    def _is_on_step(self, value: int) -> bool:
        return all((value - start) % step == 0 for start, step in self.steps)

    def _refusal(self, key: str, value: float, nearest: list[float]) -> InvalidValue:
        bounds = [] if self.minimum is None else [f"at least {self.minimum}"]
        bounds += [] if self.maximum is None else [f"at most {self.maximum}"]
        rule = " and ".join(bounds) or "a finite number"
        rule += f", in steps of {self._span()}" if self.steps else ""
        use = f"; use {' or '.join(map(str, nearest))}" if nearest else ""
        return InvalidValue(
            f"{key} must be {rule}, not {value}{use}",
            [
                {
                    "key": key,
                    "value": str(value),
                    "minimum": self.minimum,
                    "maximum": self.maximum,
                    "nearest": nearest,
                }
            ],
        )

    def _chosen(self, key: str, value: Any) -> Any:
        choices = self.choices or ()
        if value in choices and not isinstance(value, bool) | any(isinstance(one, bool) for one in choices):
            return value
        is_file = self.files is not None or any(map(is_model, choices))
        if is_file and isinstance(value, str):
            return match(value, [str(one) for one in choices], self.files or "model file")
        near = nearest(str(value), map(str, choices))
        shown = near or [str(one) for one in choices[:8]]
        raise InvalidValue(
            f"{key} {brief(repr(value))} is none of the choices here; use {' or '.join(shown) or 'another node'}",
            [{"key": key, "value": str(value), "nearest": near, "choices": list(choices)}],
        )


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def limits_by_place(graph: Graph) -> dict[Input, Limits]:
    """What every literal of a workflow must satisfy: the input it stands in, and those that it is passed to."""
    own: dict[Input, list[InputSpec]] = {}
    passed: dict[Input, list[InputSpec]] = {}
    for node_id in graph.workflow:
        for place in graph.widgets(node_id):
            # An input whose value is computed may get a literal in place of its link.
            spec, literal = graph.spec(place), live_literal(graph, place) or place
            if spec is not None:
                (own if literal == place else passed).setdefault(literal, []).append(spec)
    return {place: Limits.of([*own.get(place, ()), *passed.get(place, ())]) for place in {**own, **passed}}
