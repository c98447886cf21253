"""Follows a latent from the node that makes it to its sampler, to see its size or number change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from comfy_worker.workflow.graph import Input, number
from comfy_worker.workflow.joins import adds_batches, joins, leading_input
from comfy_worker.workflow.resizers import RESIZER_CLASSES, SIDES, sets_size, short_names
from comfy_worker.workflow.roles.parameter_inputs import declared_inputs
from comfy_worker.workflow.roles.stages import Stage, Stages
from comfy_worker.workflow.settable import settable
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.values import UNKNOWN, Values

__all__ = [
    "LatentChange",
    "LatentPath",
    "effective_number",
    "find_latent_paths",
    "input_that_sets_again",
    "path_to_sampler",
]

# The inputs with which a node enlarges, and the classes that repeat or cut a batch.
FACTORS = ("scale_by", "multiplier")
REPEATING_CLASSES = frozenset({"RepeatLatentBatch", "RepeatImageBatch"})
CUTTING_CLASSES = frozenset({"LatentFromBatch", "ImageFromBatch"})
CROPPING_CLASSES = re.compile(r"Crop")
PIXELS_PER_CELL = 8


@dataclass(frozen=True)
class LatentChange:
    """A node that changes a number of a latent, and how.

    Attributes:
        node_id: the node.
        class_type: its class.
        change: ``set``, ``limit``, ``factor``, ``repeat``, ``part``, ``sum``, or ``unknown``.
        node_input: the input that decides; None for a sum, or if the change is not known.
        joined: the paths of the other latents of a sum.
    """

    node_id: str
    class_type: str
    change: str
    node_input: Input | None = None
    joined: tuple[LatentPath, ...] = ()


@dataclass(frozen=True)
class LatentPath:
    """The input in which a number of a latent begins, and what changes it before the sampler."""

    start: Input
    changes: tuple[LatentChange, ...]


def find_latent_paths(stages: Stages) -> dict[str, LatentPath]:
    """Find what changes the size or number of the first stage's latent before its sampler.

    Returns:
        By ``width``, ``height`` or ``batch_size``, its path; nothing for a number that stays.
    """
    paths = {}
    for stage in stages.main[:1]:
        for name in (*SIDES, "batch_size"):
            path = path_to_sampler(stages, stage, name)
            if path is not None:
                paths[name] = path
    return paths


def path_to_sampler(stages: Stages, stage: Stage, name: str) -> LatentPath | None:
    """Return how a width, height or batch size changes before a stage; None if it does not."""
    path = _path(stages, stages.path_to_size(stage), name)
    return path if path is not None and path.changes else None


def _path(
    stages: Stages, nodes: Sequence[str], name: str, *, is_joined: bool = False
) -> LatentPath | None:
    """Return the path from the node that makes the latent through these nodes.

    Args:
        stages: the stages of the workflow.
        nodes: the nearest to the sampler first, the node that makes the latent last.
        name: ``width``, ``height`` or ``batch_size``.
        is_joined: whether this path is joined with another one. Its own joins are not followed.
    """
    starts = declared_inputs(stages.graph, nodes[-1], name) if nodes else []
    if not starts:
        return None
    changes = []
    for node_id in reversed(nodes[:-1]):
        if name != "batch_size":
            change = _size_change(stages.graph, node_id, name)
        elif adds_batches(stages.graph.class_type(node_id)):
            change = _sum(stages, node_id, is_joined=is_joined)
        else:
            change = _batch_change(stages.graph, node_id)
        if change is not None:
            changes.append(change)
    return LatentPath(starts[0], tuple(changes))


def _sum(stages: Stages, node_id: str, *, is_joined: bool) -> LatentChange:
    """Return what a node adds to the batch of its leading latent."""
    graph = stages.graph
    unknown = LatentChange(node_id, graph.class_type(node_id), "unknown")
    if is_joined:
        return unknown
    node_inputs = graph.linked(node_id, "LATENT") or graph.linked(node_id, "IMAGE")
    leading = leading_input(graph, node_id, node_inputs)
    joined = []
    for node_input in node_inputs:
        if node_input == leading:
            continue
        nodes = stages.latents.path_to_size(node_input)
        path = _path(stages, nodes, "batch_size", is_joined=True)
        if path is None:
            return unknown
        joined.append(path)
    return replace(unknown, change="sum", joined=tuple(joined))


def input_that_sets_again(graph: TypedWorkflow, path: LatentPath | None) -> Input | None:
    """Return the input of the last node on a path that sets the number again, if it can be set."""
    for change in reversed(path.changes if path else ()):
        if change.node_input is None or change.change not in ("set", "limit"):
            continue
        if settable(graph, change.node_input, is_size=True):
            return change.node_input
    return None


def effective_number(received: Values, path: LatentPath) -> int | None:
    """Return the number that the sampler gets in the end; None if it is not known."""
    size = _whole_number(received, path.start)
    for change in path.changes:
        if change.change == "sum":
            size = _total([size, *(effective_number(received, path) for path in change.joined)])
        else:
            size = _changed(received, change, size)
    return size


def _whole_number(received: Values, node_input: Input) -> int | None:
    value = _number(received, node_input)
    return None if value is None else int(value)


def _number(received: Values, node_input: Input | None) -> int | float | None:
    value = UNKNOWN if node_input is None else received(node_input)
    return None if value is UNKNOWN else number(value)


def _changed(received: Values, change: LatentChange, size: int | None) -> int | None:
    value = _number(received, change.node_input)
    if value is None:
        return None
    if change.change == "set":
        return int(value) or None
    if size is None:
        return None
    if change.change == "limit":
        return min(size, int(value))
    if change.change == "repeat":
        return size * int(value)
    if change.change == "part":
        first = _whole_number(received, Input(change.node_id, "batch_index")) or 0
        return min(int(value), size - min(size - 1, first))
    if "Latent" in change.class_type:
        return round(size // PIXELS_PER_CELL * value) * PIXELS_PER_CELL
    return round(size * value)


def _total(numbers: Iterable[int | None]) -> int | None:
    """Add numbers; None if one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(filter(None, known))


def _batch_change(graph: TypedWorkflow, node_id: str) -> LatentChange | None:
    class_type = graph.class_type(node_id)
    if class_type in REPEATING_CLASSES:
        return LatentChange(node_id, class_type, "repeat", Input(node_id, "amount"))
    if class_type in CUTTING_CLASSES:
        return LatentChange(node_id, class_type, "part", Input(node_id, "length"))
    return None


def _size_change(graph: TypedWorkflow, node_id: str, side: str) -> LatentChange | None:
    class_type = graph.class_type(node_id)
    if not RESIZER_CLASSES.search(class_type) or joins(class_type):
        return None
    names = short_names(graph.workflow[node_id]["inputs"])
    if sets_size(names):
        node_input = Input(node_id, names[side])
        if graph.values(node_input) == 0:
            return LatentChange(node_id, class_type, "unknown")
        is_limit = "x" in names or CROPPING_CLASSES.search(class_type) is not None
        return LatentChange(node_id, class_type, "limit" if is_limit else "set", node_input)
    for name in FACTORS:
        if name in names:
            return LatentChange(node_id, class_type, "factor", Input(node_id, names[name]))
    return LatentChange(node_id, class_type, "unknown")
