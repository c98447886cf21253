"""Parameters into the places that hold them, and back out.

Owns how a value gets into a graph: which places take it, what must change with it, and overrides of any input.
Where the places lie is asked of :mod:`~comfy_worker.workflow.roles.find`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from comfy_worker.errors import Ambiguous, NoPlace
from comfy_worker.workflow.constraints import Limits, limits_by_place
from comfy_worker.workflow.edit.overrides import apply_overrides
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.roles.find import Roles, Split
from comfy_worker.workflow.roles.stages import NAMES
from comfy_worker.workflow.roles.titles import TEXTS
from comfy_worker.workflow.tracing import Graph

__all__ = ["Declared", "apply_overrides", "describe", "fill", "has_place", "places_of", "read"]

# Where a graph has only one of the two, either word means it.
TWINS = {"cfg": "guidance", "guidance": "cfg"}

# A latent has one cell for this many pixels or more; no smaller difference in size is seen.
PIXELS_PER_CELL = 8


class Declared(Protocol):
    """A further parameter, as a template's ``params.json`` declares it."""

    @property
    def node(self) -> str:
        """The node's id."""

    @property
    def input(self) -> str:
        """The node's input."""

    @property
    def default(self) -> Any:
        """What holds where a job gives no value; None: what stands in the graph."""

    @property
    def minimum(self) -> float | None:
        """The smallest number, where the node's own bound is too wide."""

    @property
    def maximum(self) -> float | None:
        """Likewise the largest."""


def fill(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    values: Mapping[str, Any],
    declared: Mapping[str, Declared] | None = None,
) -> Workflow:
    """Put values of parameters into a copy of a workflow.

    Each value is written to every place of its parameter. ``steps`` are those of the first stage: those of a later
    one, and the steps at which one hands over to the next, stay in proportion; with ``width`` and ``height``, so
    does what a later stage is resized to.

    Args:
        workflow: stays as it is.
        roles: of this workflow.
        defs: the classes that this ComfyUI has.
        values: by parameter name; ``clip_skip`` counts layers from the end, from 1.
        declared: a template's further parameters; they go before what was found.

    Returns:
        The filled copy.

    Raises:
        InvalidInput: a value of the wrong type.
        InvalidValue: a value that a node does not take.
        NoPlace: a parameter that this graph has no place for.
        Ambiguous: a parameter with several places that do not mean the same; or a name that fits several files.
        ModelNotFound: a model file that is not installed.
    """
    limits = limits_by_place(Graph(workflow, defs))
    filled = copy.deepcopy(workflow)
    for name, value in values.items():
        places = places_of(workflow, roles, name, declared or {})
        for place in places:
            taken = _limits(name, place, limits, declared or {}).checked(name, value)
            if name == "steps":
                taken = _share(workflow, places[0], place, taken)
            _write(filled, place, -taken if name == "clip_skip" else taken)
    if "steps" in values:
        told = {Input(entry.node, entry.input) for name, entry in (declared or {}).items() if name in values}
        _move_splits(workflow, filled, [split for split in roles.splits if split.place not in told])
    if "width" in values or "height" in values:
        _scale(workflow, filled, roles, limits)
    return filled


def has_place(roles: Roles, name: str, declared: Mapping[str, Declared] | None = None) -> bool:
    """Whether a graph has one place or more for a parameter."""
    known = {*roles.places, *roles.ambiguous, *(declared or {})}
    return name in known or TWINS.get(name) in known


def read(workflow: Workflow, roles: Roles, declared: Mapping[str, Declared] | None = None) -> dict[str, Any]:
    """The value that each parameter has in a workflow now: what stands in the first of its places."""
    places = {name: found[0] for name, found in roles.places.items()}
    places |= {name: Input(entry.node, entry.input) for name, entry in (declared or {}).items()}
    values = {
        name: workflow[place.node_id]["inputs"].get(place.name)
        for name, place in places.items()
        if place.node_id in workflow
    }
    if isinstance(values.get("clip_skip"), int):
        values["clip_skip"] = -values["clip_skip"]
    return {name: value for name, value in values.items() if value is not None}


def describe(
    workflow: Workflow, roles: Roles, defs: NodeDefs, declared: Mapping[str, Declared] | None = None
) -> dict[str, dict[str, Any]]:
    """What each parameter of a workflow takes.

    Args:
        workflow: the graph.
        roles: of this workflow.
        defs: the classes that this ComfyUI has.
        declared: a template's further parameters.

    Returns:
        By name: ``type``, ``minimum``, ``maximum``, ``multipleOf``, ``enum`` as in JSON Schema, each where there
        is one; ``default``, what holds now; ``places``, each written ``node_id.input``.
    """
    declared = declared or {}
    limits = limits_by_place(Graph(workflow, defs))
    defaults = read(workflow, roles, declared)
    defaults |= {name: entry.default for name, entry in declared.items() if entry.default is not None}
    described = {}
    for name in dict.fromkeys([*roles.places, *declared]):
        places = places_of(workflow, roles, name, declared)
        schema = _limits(name, places[0], limits, declared).to_schema()
        for place in places[1:]:
            schema = _stricter(schema, _limits(name, place, limits, declared).to_schema())
        default = {"default": defaults[name]} if name in defaults else {}
        described[name] = {**schema, **default, "places": [str(place) for place in places]}
    return described


def places_of(workflow: Workflow, roles: Roles, name: str, declared: Mapping[str, Declared]) -> tuple[Input, ...]:
    """The places of a parameter, at least one."""
    if name in declared and declared[name].node in workflow:
        return (Input(declared[name].node, declared[name].input),)
    if name in roles.places:
        return roles.places[name]
    if name in roles.ambiguous:
        raise _ambiguous(workflow, roles, name)
    if TWINS.get(name) in roles.places:
        return roles.places[TWINS[name]]
    known = sorted({*roles.places, *declared})
    raise NoPlace(
        f"{name} has no place in this graph; it has {', '.join(known) or 'no parameters'}, "
        "and overrides reach any other input",
        [{"key": name, "parameters": known}],
    )


def _ambiguous(workflow: Workflow, roles: Roles, name: str) -> Ambiguous:
    candidates = roles.ambiguous[name]
    shown = ", ".join(f"{one.place} ({one.title})" for one in candidates)
    return Ambiguous(
        f"{name} may mean several nodes of this graph: {shown}; give one of these nodes the title '{name}', "
        f"or set it by overrides, such as '{candidates[0].place}'",
        [
            {
                "key": name,
                "node_id": one.place.node_id,
                "input": one.place.name,
                "title": one.title,
                "class_type": one.class_type,
                "value": workflow[one.place.node_id]["inputs"].get(one.place.name),
            }
            for one in candidates
        ],
    )


def _limits(name: str, place: Input, limits: Mapping[Input, Limits], declared: Mapping[str, Declared]) -> Limits:
    """What a place takes; where its class is not installed, what its parameter takes anywhere."""
    kind = NAMES[name][1][0] if name in NAMES else "STRING" if name in TEXTS else "*"
    found = limits.get(place) or Limits.of([InputSpec(place.name, kind, required=False)])
    if name == "clip_skip":
        return found.negated()
    if name in declared:
        entry = declared[name]
        low = found.minimum if entry.minimum is None else entry.minimum
        high = found.maximum if entry.maximum is None else entry.maximum
        return replace(found, minimum=low, maximum=high)
    return found


def _stricter(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two schemas of one parameter both allow."""
    both = {**other, **one}
    for word, choose in (("minimum", max), ("maximum", min), ("multipleOf", max)):
        both |= {word: choose(one[word], other[word])} if word in one and word in other else {}
    if "enum" in one and "enum" in other:
        both["enum"] = [choice for choice in one["enum"] if choice in other["enum"]]
    return both


def _write(workflow: Workflow, place: Input, value: Any) -> None:
    workflow[place.node_id]["inputs"][place.name] = value


def _value(workflow: Workflow, place: Input) -> Any:
    return workflow[place.node_id]["inputs"].get(place.name)


def _share(workflow: Workflow, first: Input, place: Input, steps: int) -> int:
    """The steps of one stage, in proportion to the first one's."""
    old_first, old = _value(workflow, first), _value(workflow, place)
    return max(1, round(steps * old / old_first)) if old_first and old else steps


def _move_splits(workflow: Workflow, filled: Workflow, splits: Iterable[Split]) -> None:
    """Keep the hand-over from stage to stage at the same part of the steps; each stage keeps one at least."""
    for split in splits:
        cut, old, new = _value(workflow, split.place), _value(workflow, split.steps), _value(filled, split.steps)
        if not all(isinstance(one, int) for one in (cut, old, new)) or not 0 < cut <= old:
            continue  # a stage's beginning, or an open end such as 10000
        moved = new if cut == old else max(1, min(new - 1, round(cut * new / old)))
        _write(filled, split.place, moved)


def _scale(workflow: Workflow, filled: Workflow, roles: Roles, limits: Mapping[Input, Limits]) -> None:
    """Resize what a sampler made by the factor by which its own size grew."""
    for name in ("width", "height"):
        sizes = roles.places.get(name, ())
        old, new = (_value(graph, sizes[0]) if sizes else 0 for graph in (workflow, filled))
        for size in roles.resized:
            place = size.width if name == "width" else size.height
            was = _value(workflow, place)
            if place not in sizes and old and isinstance(was, int) and isinstance(old, int):
                cells = round(was * new / old / PIXELS_PER_CELL) * PIXELS_PER_CELL
                _write(filled, place, limits.get(place, Limits()).nearest(cells))
