"""Finds the numbers and choices of samplers: seed, steps, cfg, guidance, sampler, denoise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.parameter_inputs import written_inputs, written_inputs_of
from comfy_worker.workflow.roles.roles import Candidate, StepRange, candidates
from comfy_worker.workflow.roles.stages import Stage, Stages
from comfy_worker.workflow.roles.texts import MAX_TEXTS
from comfy_worker.workflow.settable import settable
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Fold

__all__ = [
    "conditioning_nodes",
    "find_sampler_settings",
    "find_step_ranges",
    "find_unassigned_settings",
]

SETTINGS = ("seed", "steps", "cfg", "sampler", "scheduler", "denoise")


def find_sampler_settings(stages: Stages) -> dict[str, list[Input]]:
    """Find the settings of the main stages' samplers, by parameter."""
    graph, nodes = stages.graph, stages.main_settings
    found = {name: _settings(graph, nodes, name) for name in SETTINGS if name != "denoise"}
    guidance_nodes = [*nodes, *conditioning_nodes(stages, stages.main)]
    found["guidance"] = written_inputs_of(graph, guidance_nodes, "guidance")
    # An empty latent must be denoised completely, so stages that begin with one are skipped unless
    # all do.
    begun = [stage for stage in stages.main if not stage.latent_trace.is_sized]
    denoise = written_inputs_of(graph, stages.settings_nodes(begun), "denoise")
    found["denoise"] = denoise or written_inputs_of(graph, nodes, "denoise")
    return found


def find_unassigned_settings(
    stages: Stages, found: Mapping[str, Sequence[Input]]
) -> dict[str, tuple[Candidate, ...]]:
    """Find the settings that detailers and upscalers keep; parameters do not change them."""
    nodes = stages.settings_nodes(stages.retouches)
    unassigned = {}
    for name in SETTINGS:
        assigned = set(found[name])
        own = _settings(stages.graph, nodes, name)
        kept = [node_input for node_input in own if node_input not in assigned]
        if assigned and kept:
            unassigned[name] = candidates(stages.graph, kept[:MAX_TEXTS])
    return unassigned


def find_step_ranges(stages: Stages) -> tuple[StepRange, ...]:
    """Find the inputs that divide the steps, such as ``start_at_step`` of a sampler."""
    graph = stages.graph

    def first_steps(node_id: str, above: list[Input | None]) -> Input | None:
        """Return the ``steps`` input of the nearest node that counts sampling steps."""
        if not _changes_sigmas(graph, node_id):
            return next(iter(written_inputs(graph, node_id, "steps")), None)
        return next((steps for steps in above if steps), None)

    all_steps = Fold(lambda node_id: graph.above(node_id, "SIGMAS"), first_steps, graph.check)
    found: dict[StepRange, None] = {}
    for node_id in stages.settings_nodes(stages.all):
        steps = all_steps(node_id)
        names = {"step"} if _changes_sigmas(graph, node_id) else {"start_at_step", "end_at_step"}
        for node_input in graph.inputs(node_id):
            if steps and node_input.name in names:
                written = settable(graph, node_input)[:1]
                found |= {StepRange(first, steps): None for first in written}
    return tuple(found)


def conditioning_nodes(stages: Stages, of: Iterable[Stage]) -> list[str]:
    """Return the nodes between the samplers of these stages and their texts."""
    starts = []
    for stage in of:
        if stage.sampler and stage.sampler.positive:
            starts.append((stage.sampler.positive, "positive"))
        if stage.sampler and stage.sampler.negative:
            starts.append((stage.sampler.negative, "negative"))
    return stages.reader.nodes(starts)


def _settings(graph: TypedWorkflow, node_ids: Iterable[str], name: str) -> list[Input]:
    if name == "seed":
        node_ids = [node_id for node_id in node_ids if _adds_noise(graph, node_id)]
    elif name == "steps":
        node_ids = [node_id for node_id in node_ids if not _changes_sigmas(graph, node_id)]
    return written_inputs_of(graph, node_ids, name)


def _adds_noise(graph: TypedWorkflow, node_id: str) -> bool:
    return graph.value(Input(node_id, "add_noise")) not in ("disable", False)


def _changes_sigmas(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node takes sigmas and outputs changed ones.

    Then its ``steps`` does not count sampling steps.
    """
    declared = graph.declared(node_id)
    if declared is None or "SIGMAS" not in declared.outputs:
        return False
    return bool(graph.linked(node_id, "SIGMAS"))
