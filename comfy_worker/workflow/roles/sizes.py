"""Finds the inputs for width, height, length, batch size and frame rate, and their overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from comfy_worker.workflow.graph import Input, as_link
from comfy_worker.workflow.resizers import SIDES
from comfy_worker.workflow.roles.latent_path import input_that_sets_again, path_to_sampler
from comfy_worker.workflow.roles.parameter_inputs import (
    declared_inputs,
    has_size,
    written_inputs,
    written_inputs_of,
)
from comfy_worker.workflow.roles.roles import Candidate, Preset, ScaledSize, candidates
from comfy_worker.workflow.roles.stages import Stages
from comfy_worker.workflow.roles.texts import MAX_TEXTS
from comfy_worker.workflow.settable import settable
from comfy_worker.workflow.size_presets import SizePresets
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = [
    "find_fps",
    "find_presets",
    "find_scaled_sizes",
    "find_sizes",
    "find_unassigned_sizes",
]

# The input for the length of a sound latent that belongs to a video, in frames of the video.
SOUND_LENGTH = "frames_number"
# What the nodes output that must know the size of the latent, such as schedulers.
TYPES_THAT_FIT_A_SIZE = frozenset({"MODEL", "SIGMAS", "CONDITIONING"})


def find_sizes(stages: Stages) -> dict[str, list[Input]]:
    """Find the inputs for length, batch size, width and height of the main stages' latents."""
    graph = stages.graph
    origins = stages.origins(stages.main)
    found = {
        name: written_inputs_of(graph, origins.latent_sources, name)
        for name in ("length", "batch_size")
    }
    found["length"] += _sound_lengths(graph, origins.latent_sources, found["length"])
    aside = set(_sizes_aside(stages))
    sizes = [node_id for node_id in origins.sizes if node_id not in aside]
    direct = {side: _side_inputs(stages, sizes, side) for side in SIDES}
    for side in SIDES:
        written: dict[Input, None] = {}
        for node_input in direct[side]:
            written |= dict.fromkeys(settable(graph, node_input, is_size=True))
        found[side] = _with_agreeing(stages, side, list(written))
    if not set(found["width"]).isdisjoint(found["height"]):
        # One number makes a square. Two sides that a client sets need an input each.
        found |= direct
    return found


def _sound_lengths(
    graph: TypedWorkflow, node_ids: Iterable[str], lengths: Sequence[Input]
) -> list[Input]:
    """Return the lengths of sound latents that are as long as the video."""
    values = {repr(graph.value(node_input)) for node_input in lengths}
    found: dict[Input, None] = {}
    for node_id in node_ids:
        for node_input in graph.widgets(node_id):
            if node_input.name == SOUND_LENGTH:
                found |= dict.fromkeys(settable(graph, node_input))
    return [
        node_input
        for node_input in found
        if node_input not in lengths and values == {repr(graph.value(node_input))}
    ]


def find_unassigned_sizes(
    stages: Stages, found: Mapping[str, Sequence[Input]]
) -> dict[str, tuple[Candidate, ...]]:
    """Find the sizes of latents that are laid on another one and keep their own size."""
    unassigned = {}
    for side in SIDES:
        own = written_inputs_of(stages.graph, _sizes_aside(stages), side)
        kept = [node_input for node_input in own if node_input not in found[side]]
        if found[side] and kept:
            unassigned[side] = candidates(stages.graph, kept[:MAX_TEXTS])
    return unassigned


def _sizes_aside(stages: Stages) -> list[str]:
    """Return the nodes that set the size of a latent, but not the size of the final result."""
    leading = stages.leading_sizes()
    lone = {stage.node_id for stage in stages.main if stage.sampler is None}
    sizes = stages.origins(stages.main).sizes
    return [node_id for node_id in sizes if node_id not in leading and node_id not in lone]


def _side_inputs(stages: Stages, sizes: Iterable[str], side: str) -> list[Input]:
    """Return the inputs for a side, even if a link stands in them.

    They belong to the latent sources, or to the nodes behind them that set the size again.
    """
    graph = stages.graph
    found: dict[Input, None] = {}
    replaced: set[str] = set()
    kept: set[str] = set()
    for stage in stages.main:
        nodes = stages.path_to_size(stage)
        path = path_to_sampler(stages, stage, side) if nodes else None
        node_input = input_that_sets_again(graph, path)
        if node_input is None:
            kept.update(nodes[-1:])
        else:
            replaced.update(nodes[-1:])
            found[node_input] = None
    for node_id in sizes:
        if node_id in kept or node_id not in replaced:
            found |= dict.fromkeys(declared_inputs(graph, node_id, side))
    return list(found)


def _with_agreeing(stages: Stages, side: str, found: list[Input]) -> list[Input]:
    """Add the sizes of models, schedulers and joined latents if they have the same value."""
    graph = stages.graph
    node_inputs = dict.fromkeys(found)
    values = {repr(graph.value(node_input)) for node_input in found}
    fitting = [node_id for node_id in stages.live if _fits_a_size(graph, node_id)]
    for node_id in (*_sizes_aside(stages), *fitting):
        for node_input in written_inputs(graph, node_id, side):
            if values == {repr(graph.value(node_input))}:
                node_inputs[node_input] = None
    return list(node_inputs)


def _fits_a_size(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node that makes no latent must know its size."""
    declared = graph.declared(node_id)
    if declared is None or TYPES_THAT_FIT_A_SIZE.isdisjoint(declared.outputs):
        return False
    return has_size(graph, node_id)


def find_fps(stages: Stages) -> list[Input]:
    """Find the frame rates of nodes that make videos, and equal frame rates of other nodes."""
    graph, live = stages.graph, stages.live
    video_nodes = [
        node_id
        for node_id in live
        if graph.linked(node_id, "IMAGE") and not graph.linked(node_id, "VAE")
    ]
    found = written_inputs_of(graph, video_nodes, "fps")
    rates = {repr(graph.value(node_input)) for node_input in found}
    for node_input in written_inputs_of(graph, live, "fps"):
        if repr(graph.value(node_input)) in rates and node_input not in found:
            found.append(node_input)
    return found


def find_presets(graph: TypedWorkflow, node_inputs: Sequence[Input]) -> dict[Input, Preset]:
    """Find the choices that now override these inputs for width and height."""
    size_presets = graph.view(SizePresets)
    presets = {}
    for node_input in node_inputs:
        choice = size_presets.find(node_input.node_id)
        if choice is None:
            continue
        free = size_presets.free_choice(choice)
        if free is None or graph.values(choice) != free:
            is_linked = as_link(graph.value(choice)) is not None
            presets[node_input] = Preset(choice, None if is_linked else free)
    return presets


def find_scaled_sizes(stages: Stages) -> tuple[ScaledSize, ...]:
    """Find the nodes that resize a sampler's latent or picture to a literal size."""
    graph = stages.graph
    below = graph.downstream(stage.node_id for stage in stages.all)
    found = []
    for node_id in stages.live:
        if node_id not in below or not _resizes(graph, node_id):
            continue
        width, height = (written_inputs(graph, node_id, side) for side in SIDES)
        # A computed size follows by itself.
        is_computed = any(as_link(graph.value(node_input)) for node_input in (*width, *height))
        if width and height and not is_computed:
            found.append(ScaledSize(width[0], height[0]))
    return tuple(found)


def _resizes(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node makes a latent or picture of a declared size out of another one."""
    declared = graph.declared(node_id)
    if declared is None or not has_size(graph, node_id):
        return False
    first = next(iter(declared.outputs), None)
    return first in ("LATENT", "IMAGE") and bool(graph.linked(node_id, first))
