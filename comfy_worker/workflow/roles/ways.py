"""Follows a latent from the node that makes it to its sampler, for what changes its size or number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from comfy_worker.workflow.graph import Input, number
from comfy_worker.workflow.roles.stages import Stage, Stages, held_as
from comfy_worker.workflow.tracing import KEEPS_SHAPE, RESIZERS, TypedWorkflow, settable
from comfy_worker.workflow.values import UNKNOWN, Values

__all__ = ["Step", "Way", "effective", "set_again", "way_to_sampler"]

SIDES = ("width", "height")
# The inputs by which a node enlarges, and the classes that repeat or cut a batch.
FACTORS = ("scale_by", "multiplier")
REPEATS = frozenset({"RepeatLatentBatch", "RepeatImageBatch"})
PARTS = frozenset({"LatentFromBatch", "ImageFromBatch"})
CROPS = re.compile(r"Crop")
PIXELS_PER_CELL = 8


@dataclass(frozen=True)
class Step:
    """A node that changes a number of a latent, and how.

    Attributes:
        node_id: the node.
        class_type: its class.
        change: ``set``, ``limit``, ``factor``, ``repeat``, ``part``, or ``unknown``.
        node_input: the input that decides; None where the change is not known.
    """

    node_id: str
    class_type: str
    change: str
    node_input: Input | None = None


@dataclass(frozen=True)
class Way:
    """The input in which a number of a latent begins, and what changes it before the sampler."""

    start: Input
    steps: tuple[Step, ...]


def way_to_sampler(graph: TypedWorkflow, stages: Stages, stage: Stage, name: str) -> Way | None:
    """Return how a width, height or batch size changes before a stage; None if it does not."""
    nodes = stages.way(stage)
    held = held_as(graph, nodes[-1], name) if nodes else []
    step = _batch_step if name == "batch_size" else _size_step
    found = [step(graph, node_id, name) for node_id in reversed(nodes[:-1])]
    steps = tuple(change for change in found if change is not None)
    return Way(held[0], steps) if held and steps else None


def set_again(graph: TypedWorkflow, way: Way | None) -> Input | None:
    """Return the input of the last node on the way that sets the number again, if it can be set."""
    steps: Sequence[Step] = way.steps if way else ()
    for step in reversed(steps):
        is_set = step.change in ("set", "limit")
        if is_set and step.node_input and settable(graph, step.node_input, is_size=True):
            return step.node_input
    return None


def effective(received: Values, way: Way) -> int | None:
    """Return the number that the sampler gets in the end; None where it is not known."""
    size = _whole(received, way.start)
    for step in way.steps:
        size = _changed(received, step, size)
    return size


def _whole(received: Values, node_input: Input | None) -> int | None:
    value = _number(received, node_input)
    return None if value is None else int(value)


def _number(received: Values, node_input: Input | None) -> int | float | None:
    value = UNKNOWN if node_input is None else received(node_input)
    return None if value is UNKNOWN else number(value)


def _changed(received: Values, step: Step, size: int | None) -> int | None:
    value = _number(received, step.node_input)
    if value is None or (size is None and step.change != "set"):
        return None
    if step.change == "set" or size is None:
        return int(value) or None
    if step.change == "limit":
        return min(size, int(value))
    if step.change == "repeat":
        return size * int(value)
    if step.change == "part":
        first = _whole(received, Input(step.node_id, "batch_index")) or 0
        return min(int(value), size - min(size - 1, first))
    if "Latent" in step.class_type:
        return round(size // PIXELS_PER_CELL * value) * PIXELS_PER_CELL
    return round(size * value)


def _batch_step(graph: TypedWorkflow, node_id: str, _name: str) -> Step | None:
    class_type = graph.workflow[node_id]["class_type"]
    if class_type in REPEATS:
        return Step(node_id, class_type, "repeat", Input(node_id, "amount"))
    if class_type in PARTS:
        return Step(node_id, class_type, "part", Input(node_id, "length"))
    return None


def _size_step(graph: TypedWorkflow, node_id: str, side: str) -> Step | None:
    node = graph.workflow[node_id]
    class_type = node["class_type"]
    if not RESIZERS.search(class_type):
        return None
    names = {name.rpartition(".")[2].removeprefix("target_"): name for name in node["inputs"]}
    if names.keys() >= set(SIDES) and not KEEPS_SHAPE.search(" ".join(names)):
        node_input = Input(node_id, names[side])
        if graph.values(node_input) == 0:
            return Step(node_id, class_type, "unknown")
        change = "limit" if "x" in names or CROPS.search(class_type) else "set"
        return Step(node_id, class_type, change, node_input)
    factor = next((names[name] for name in FACTORS if name in names), None)
    if factor is not None:
        return Step(node_id, class_type, "factor", Input(node_id, factor))
    return Step(node_id, class_type, "unknown")
