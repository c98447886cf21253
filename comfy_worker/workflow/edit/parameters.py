"""Parameters into the inputs that hold them, with what must change beside them, and back out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from comfy_worker.errors import Ambiguous, NoPlace, brief
from comfy_worker.workflow.constraints import InputConstraint, constraints_by_input
from comfy_worker.workflow.edit.overrides import apply_overrides
from comfy_worker.workflow.graph import (
    Check,
    Fold,
    Input,
    Workflow,
    copied,
    links_of,
    never_ends,
    number,
)
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.roles.find import (
    PLACEHOLDER,
    PLACEHOLDER_WORDS,
    Candidate,
    Roles,
    StepRange,
)
from comfy_worker.workflow.roles.stages import NAMES
from comfy_worker.workflow.roles.titles import TEXTS
from comfy_worker.workflow.roles.ways import effective
from comfy_worker.workflow.tracing import SIZE_CHOICE, UPSCALE_FACTORS, TypedWorkflow
from comfy_worker.workflow.values import UNKNOWN, Values

__all__ = [
    "Declared",
    "apply_overrides",
    "changes_beside",
    "describe",
    "fill",
    "has_place",
    "places_of",
    "read",
    "seeds_of_outputs",
]

# Where a graph has only one of the two, either word means it.
TWINS = {"cfg": "guidance", "guidance": "cfg"}

# A latent has one cell for this many pixels or more; no smaller difference in size is seen.
PIXELS_PER_CELL = 8

SIDES = ("width", "height")

# A stage with fewer steps than this says nothing of how many the others need.
FEW_STEPS = 5
MOST_SEED = 2**64 - 1
# So many inputs are named in a warning.
MAX_NAMED = 4


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
    check: Check = never_ends,
) -> Workflow:
    """Put values of parameters into a copy of a workflow.

    Each value is written to every place of its parameter. ``steps`` are those of the leading stage, which is the
    first, or the longest where the first has a few only: those of the others, and the steps at which one hands
    over to the next, stay in proportion; with ``width`` and ``height``, so does what a later stage is resized to.
    The first place gets the seed; the others keep their distance to it. A choice that overrides the size is set
    to its free one.

    Args:
        workflow: stays as it is.
        roles: of this workflow.
        defs: the classes that this ComfyUI has.
        values: by parameter name; ``clip_skip`` counts layers from the end, from 1.
        declared: a template's further parameters; they go before what was found.
        check: asked again and again, so that the filling of a large graph can be ended.

    Returns:
        The filled copy.

    Raises:
        InvalidInput: a value of the wrong type.
        InvalidValue: a value that a node does not take.
        NoPlace: a parameter that this graph has no place for.
        Ambiguous: a parameter with several places that do not mean the same; or a name that fits several files.
        ModelNotFound: a model file that is not installed.
    """
    declared = declared or {}
    limits = constraints_by_input(TypedWorkflow(workflow, defs, check))
    filled, received = copied(workflow), Values(workflow, check)
    for name, value in values.items():
        node_inputs = places_of(workflow, roles, name, declared)
        leader = _leader(received, node_inputs) if name == "steps" else node_inputs[0]
        for node_input in node_inputs:
            place_limits = _limits(name, node_input, limits, declared)
            taken = place_limits.checked(name, value)
            if name == "steps":
                taken = _share(received, leader, node_input, taken)
            elif name == "seed":
                taken = _apart(received, node_inputs[0], node_input, taken, place_limits)
            _write(filled, node_input, name, -taken if name == "clip_skip" else taken)
    if "steps" in values:
        own = {Input(entry.node, entry.input) for name, entry in declared.items() if name in values}
        _move_splits(
            received, filled, [split for split in roles.step_ranges if split.node_input not in own]
        )
    sides = [side for side in SIDES if side in values and side not in declared]
    if sides:
        _free_presets(workflow, filled, roles, sides)
    if not values.keys().isdisjoint(SIDES):
        _scale(received, filled, roles, limits)
    return filled


def changes_beside(
    workflow: Workflow,
    filled: Workflow,
    roles: Roles,
    values: Mapping[str, Any],
    declared: Iterable[str] = (),
) -> list[str]:
    """What happened to a client's values beside what they say, in sentences.

    Args:
        workflow: before it was filled.
        filled: after that.
        roles: of the workflow.
        values: the client's, by parameter name.
        declared: the names of a template's further parameters, which mean one input each.
    """
    sentences = []
    old, new = Values(workflow), Values(filled)
    for name in [name for name in values if name in roles.inputs and name not in set(declared)]:
        node_inputs = roles.inputs[name]
        reached = _received(name, new, roles) if name in roles.received else None
        if name in roles.ways:
            sentences += _changed_on_the_way(name, values[name], new, roles)
        elif reached is not None and number(values[name]) not in (None, reached):
            sentences.append(
                f"{name} is {reached}: the graph computes it from the {values[name]} of the request"
            )
        if name == "steps":
            shares = _other_numbers(new, node_inputs, values[name])
            if shares:
                leader = _leader(old, node_inputs)
                sentences.append(f"steps are those of {leader}; in proportion {_listed(shares)}")
        elif name == "seed":
            shares = _other_numbers(new, node_inputs, values[name])
            if shares:
                sentences.append(
                    f"seed is that of {node_inputs[0]}; {_listed(shares)}, as far from it as before"
                )
        elif name in ("cfg", "denoise", "sampler", "scheduler", "guidance"):
            before = [brief(_value(old, node_input), 20) for node_input in node_inputs]
            if len(set(before)) > 1:
                held = [
                    f"{node_input} ({value})"
                    for node_input, value in zip(node_inputs, before, strict=True)
                ]
                sentences.append(
                    f"{name} went to each of {_listed(held)}, which had different values"
                )
        elif name in SIDES:
            for node_input in node_inputs:
                preset = roles.presets.get(node_input)
                if preset is not None:
                    sentences.append(
                        f"{preset.choice} was set from {brief(_value(old, preset.choice))!r} to "
                        f"{preset.free!r}, since it decided the size"
                    )
    return list(dict.fromkeys(sentences))


def _other_numbers(graph: Values, node_inputs: Sequence[Input], wanted: Any) -> list[str]:
    """Describe the inputs that did not get the number that was sent."""
    return [
        f"{node_input} has {_value(graph, node_input)}"
        for node_input in node_inputs
        if number(_value(graph, node_input)) != number(wanted)
    ]


def _changed_on_the_way(name: str, value: Any, received: Values, roles: Roles) -> list[str]:
    """Say that a size or a number of pictures becomes another one before the sampler."""
    way = roles.ways[name]
    reached, step = effective(received, way), way.steps[-1]
    if reached == number(value):
        return []
    shown = "a number that only a run can tell" if reached is None else str(reached)
    return [
        f"{name} goes to {roles.inputs[name][0]}, but node {step.node_id} ({step.class_type}) "
        f"gives the sampler {shown}"
    ]


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return ", ".join(words[:MAX_NAMED]) + more


def has_place(roles: Roles, name: str, declared: Mapping[str, Declared] | None = None) -> bool:
    """Whether a graph has one place or more for a parameter."""
    if name in (declared or {}):
        return True
    node_inputs = roles.inputs.get(name, ())
    if any(
        node_input in roles.presets and roles.presets[node_input].free is None
        for node_input in node_inputs
    ):
        return False
    known = {*roles.inputs, *roles.ambiguous, *(declared or {})}
    return name in known or TWINS.get(name) in known


def read(
    workflow: Workflow,
    roles: Roles,
    declared: Mapping[str, Declared] | None = None,
    before: Workflow | None = None,
) -> dict[str, Any]:
    """The value that each parameter has in a workflow now: what stands in the first of its places.

    Of the steps it is the leading stage's, as it was ``before`` the workflow was filled. What the graph computes
    on the way to its sampler is the computed number, so ``parameters`` tells what the sampler gets.
    A number that is written as text is read as the number that ComfyUI makes of it; a size that a choice
    overrides is the one of that choice, and left out where the choice does not tell it.
    """
    declared = declared or {}
    received = Values(workflow)
    node_inputs = {name: found[0] for name, found in roles.inputs.items()}
    if "steps" in node_inputs:
        node_inputs["steps"] = _leader(
            Values(before) if before else received, roles.inputs["steps"]
        )
    node_inputs |= {name: Input(entry.node, entry.input) for name, entry in declared.items()}
    values: dict[str, Any] = {}
    for name, node_input in node_inputs.items():
        if node_input.node_id not in workflow:
            continue
        value = _value(received, node_input)
        preset = roles.presets.get(node_input)
        if name in SIDES and preset is not None and _value(received, preset.choice) != preset.free:
            value = _preset_size(_value(received, preset.choice)).get(name)
        elif name in roles.ways and name not in declared:
            value = effective(received, roles.ways[name])
        elif name in roles.received and name not in declared:
            reached = _received(name, received, roles)
            value = value if reached is None else reached
        elif name in NAMES and isinstance(value, str) and NAMES[name][1][0] in ("INT", "FLOAT"):
            value = value if number(value) is None else number(value)
        if value is not None:
            values[name] = value
    if isinstance(values.get("clip_skip"), int):
        values["clip_skip"] = -values["clip_skip"]
    return values


def _received(name: str, received: Values, roles: Roles) -> int | float | None:
    """What the sampler or latent gets of a number that the graph computes; of a size the size in the end."""
    computed = number(_value(received, roles.received[name]))
    written = number(_value(received, roles.inputs[name][0]))
    if computed is None or not written or name not in SIDES:
        return computed
    factor = min((1, *UPSCALE_FACTORS), key=lambda factor: abs(computed * factor - written))
    return computed * factor


def seeds_of_outputs(workflow: Workflow, roles: Roles) -> dict[str, int]:
    """By output node, the seed that its pictures are made with: of several the leading stage's."""
    node_inputs = [
        *roles.inputs.get("seed", ()),
        *(candidate.node_input for candidate in roles.unassigned.get("seed", ())),
    ]
    ranks: dict[str, int] = {}
    for rank, node_input in enumerate(node_inputs):
        ranks.setdefault(node_input.node_id, rank)

    def above(node_id: str) -> list[str]:
        return [
            link.node_id
            for link in links_of(workflow[node_id]).values()
            if link.node_id in workflow
        ]

    def lowest(node_id: str, ranks_above: list[int]) -> int:
        return min([ranks.get(node_id, len(node_inputs)), *ranks_above])

    first = Fold(above, lowest)
    received = Values(workflow)
    seeds = {}
    for node_id in roles.outputs:
        rank = first(node_id) if node_id in workflow else len(node_inputs)
        seed = number(_value(received, node_inputs[rank])) if rank < len(node_inputs) else None
        if isinstance(seed, int):
            seeds[node_id] = seed
    return seeds


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
    limits = constraints_by_input(TypedWorkflow(workflow, defs))
    # A default is what a client may send to keep the graph as it is, whatever changes it later.
    defaults = read(workflow, replace(roles, ways={}), declared)
    defaults |= {
        name: entry.default for name, entry in declared.items() if entry.default is not None
    }
    described = {}
    for name in dict.fromkeys([*roles.inputs, *declared]):
        node_inputs = places_of(workflow, roles, name, declared)
        schema = _limits(name, node_inputs[0], limits, declared).to_schema()
        for node_input in node_inputs[1:]:
            schema = _stricter(schema, _limits(name, node_input, limits, declared).to_schema())
        default = {"default": defaults[name]} if name in defaults else {}
        described[name] = {
            **schema,
            **default,
            "places": [str(node_input) for node_input in node_inputs],
        }
    return described


def places_of(
    workflow: Workflow, roles: Roles, name: str, declared: Mapping[str, Declared]
) -> tuple[Input, ...]:
    """The places of a parameter, at least one."""
    if name in declared and declared[name].node in workflow:
        return (Input(declared[name].node, declared[name].input),)
    if name in roles.inputs:
        _refuse_preset(workflow, roles, name)
        return roles.inputs[name]
    if name in roles.ambiguous:
        raise _ambiguous(workflow, roles, name)
    if TWINS.get(name) in roles.inputs:
        return roles.inputs[TWINS[name]]
    known = sorted({*roles.inputs, *declared})
    raise NoPlace(
        f"this workflow has no input for {name}; it has {', '.join(known) or 'no parameters'}, "
        "use overrides for any other input",
        [{"key": name, "parameters": known}],
    )


def _refuse_preset(workflow: Workflow, roles: Roles, name: str) -> None:
    """Refuse a size that a choice overrides which has no free setting."""
    for node_input in roles.inputs[name] if name in SIDES else ():
        preset = roles.presets.get(node_input)
        if preset is not None and preset.free is None:
            shown = brief(_value(Values(workflow), preset.choice))
            raise NoPlace(
                f"this workflow has no input for {name}: {preset.choice} ({shown}) decides the size; "
                "set that by overrides",
                [
                    {
                        "key": name,
                        "node_id": preset.choice.node_id,
                        "input": preset.choice.name,
                        "value": shown,
                    }
                ],
            )


def _shown(candidate: Candidate) -> str:
    return f"{candidate.node_input} ({brief(candidate.title)})"


def _ambiguous(workflow: Workflow, roles: Roles, name: str) -> Ambiguous:
    candidates = roles.ambiguous[name]
    shown = _listed([_shown(candidate) for candidate in candidates])
    return Ambiguous(
        f"{name} could belong to several nodes of this workflow: {shown}; "
        f"give one of these nodes the title '{name}', or use overrides with a key such as "
        f"'{candidates[0].node_input}'",
        [
            {
                "key": name,
                "node_id": candidate.node_input.node_id,
                "input": candidate.node_input.name,
                "title": candidate.title,
                "class_type": candidate.class_type,
                "value": workflow[candidate.node_input.node_id]["inputs"].get(
                    candidate.node_input.name
                ),
            }
            for candidate in candidates
        ],
    )


def _limits(
    name: str,
    node_input: Input,
    limits: Mapping[Input, InputConstraint],
    declared: Mapping[str, Declared],
) -> InputConstraint:
    """What a place takes; where its class is not installed, what its parameter takes anywhere."""
    type_name = NAMES[name][1][0] if name in NAMES else "STRING" if name in TEXTS else "*"
    found = limits.get(node_input) or InputConstraint.of(
        [InputSpec(node_input.name, type_name, required=False)]
    )
    if name == "clip_skip":
        return found.negated()
    if name in declared:
        entry = declared[name]
        low = found.minimum if entry.minimum is None else entry.minimum
        high = found.maximum if entry.maximum is None else entry.maximum
        return replace(found, minimum=low, maximum=high)
    return found


def _stricter(candidate: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two schemas of one parameter both allow."""
    both = {**other, **candidate}
    for word, choose in (("minimum", max), ("maximum", min), ("multipleOf", max)):
        both |= (
            {word: choose(candidate[word], other[word])}
            if word in candidate and word in other
            else {}
        )
    if "enum" in candidate and "enum" in other:
        both["enum"] = [choice for choice in candidate["enum"] if choice in other["enum"]]
    return both


def _write(workflow: Workflow, node_input: Input, name: str, value: Any) -> None:
    """Set an input; of a text around a placeholder only the placeholder."""
    inputs = workflow[node_input.node_id]["inputs"]
    old = inputs.get(node_input.name)
    if isinstance(old, str) and isinstance(value, str):
        words = {
            word for word in PLACEHOLDER.findall(old) if PLACEHOLDER_WORDS.get(word, word) == name
        }
        if words:
            value = PLACEHOLDER.sub(lambda found: value if found[1] in words else found[0], old)
    inputs[node_input.name] = value


def _value(received: Values, node_input: Input) -> Any:
    """What an input gets, computed where a link leads to it; None where that is not known."""
    value = received(node_input)
    return None if value is UNKNOWN else value


def _leader(received: Values, node_inputs: Sequence[Input]) -> Input:
    """The place of the steps that a client means: the first, or the longest where the first has a few only."""
    known = [node_input for node_input in node_inputs if received.has(node_input)] or [
        node_inputs[0]
    ]
    counts = [number(_value(received, node_input)) or 0 for node_input in known]
    longest = max(counts)
    has_few = 0 < counts[0] < FEW_STEPS and longest >= 2 * counts[0]
    return known[counts.index(longest)] if has_few else known[0]


def _share(received: Values, leader: Input, node_input: Input, steps: int) -> int:
    """The steps of one stage, in proportion to the leading one's."""
    old_leader, old = number(_value(received, leader)), number(_value(received, node_input))
    if not old_leader or not old or old_leader < 0 or old < 0:
        return steps
    # In whole numbers where they are whole: a graph may hold one that no float holds.
    share = steps * old / old_leader if max(old, old_leader) < MOST_SEED else steps
    return max(1, round(share))


def _apart(
    received: Values, first: Input, node_input: Input, seed: int, limits: InputConstraint
) -> int:
    """The seed of one place: as far from the first one's as it was, round the end of what the node takes."""
    old_first, old = number(_value(received, first)), number(_value(received, node_input))
    if not isinstance(old_first, int) or not isinstance(old, int):
        return seed
    low = int(limits.minimum or 0)
    high = MOST_SEED if limits.maximum is None else int(limits.maximum)
    return low + (seed + old - old_first - low) % (high - low + 1)


def _preset_size(choice: Any) -> dict[str, int]:
    """The width and height that a choice names."""
    found = SIZE_CHOICE.search(str(choice))
    return dict(zip(SIDES, map(int, found.groups()), strict=True)) if found else {}


def _free_presets(workflow: Workflow, filled: Workflow, roles: Roles, sides: Sequence[str]) -> None:
    """Set the choices that override a size to their free one, and keep the side that no value was given for."""
    node_inputs = {node_input: side for side in SIDES for node_input in roles.inputs.get(side, ())}
    old, new = Values(workflow), Values(filled)
    for node_input, preset in roles.presets.items():
        if node_inputs.get(node_input) in sides and preset.free is not None:
            _set(filled, preset.choice, preset.free)
    for node_input, side in node_inputs.items():
        own = roles.presets.get(node_input)
        if own is not None and side not in sides and _value(new, own.choice) == own.free:
            size = _preset_size(_value(old, own.choice))
            _set(filled, node_input, size.get(side, _value(new, node_input)))


def _set(workflow: Workflow, node_input: Input, value: Any) -> None:
    workflow[node_input.node_id]["inputs"][node_input.name] = value


def _move_splits(received: Values, filled: Workflow, splits: Iterable[StepRange]) -> None:
    """Keep the hand-over from stage to stage at the same part of the steps; each stage keeps one at least."""
    now = Values(filled)
    for split in splits:
        cut, old = number(_value(received, split.node_input)), number(_value(received, split.steps))
        new = number(_value(now, split.steps))
        if not isinstance(cut, int) or not isinstance(old, int) or not isinstance(new, int):
            continue
        if not 0 < cut <= old:
            continue  # a stage's beginning, or an open end such as 10000
        moved = new if cut == old else max(1, min(new - 1, round(cut * new / old)))
        _set(filled, split.node_input, moved)


def _scale(
    received: Values, filled: Workflow, roles: Roles, limits: Mapping[Input, InputConstraint]
) -> None:
    """Resize what a sampler made by the factor by which its own size grew."""
    now = Values(filled)
    for name in SIDES:
        sizes = roles.inputs.get(name, ())
        old, new = (
            number(_value(values, sizes[0])) if sizes else None for values in (received, now)
        )
        taken = set(sizes)
        for size in roles.scaled_sizes:
            node_input = size.width if name == "width" else size.height
            was = number(_value(received, node_input))
            if (
                node_input in taken
                or not isinstance(was, int)
                or not isinstance(old, int)
                or not old
                or new is None
            ):
                continue
            if max(was, old) < MOST_SEED:
                cells = round(was * new / old / PIXELS_PER_CELL) * PIXELS_PER_CELL
                _set(filled, node_input, limits.get(node_input, InputConstraint()).nearest(cells))
