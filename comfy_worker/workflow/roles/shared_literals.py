"""Separates parameters that share a literal, so that a client can set each of them alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.literals import resolve_live_literal
from comfy_worker.workflow.roles.parameter_inputs import PARAMETER_INPUTS, TEXT_SIDES
from comfy_worker.workflow.roles.prompts import apart_from_file_names
from comfy_worker.workflow.roles.stages import Stages

__all__ = ["separate"]


def separate(
    stages: Stages, found: dict[str, list[Input]], before: Mapping[str, Collection[Input]]
) -> None:
    """Replace the literals that several parameters share by the inputs that read them.

    Args:
        stages: the stages of the workflow.
        found: by parameter, its inputs; changed here.
        before: the same before titles claimed inputs: those literals count as shared, too.
    """
    for name in [name for name in found if name in PARAMETER_INPUTS]:
        others: set[Input] = set()
        for other, node_inputs in found.items():
            if other != name and other in PARAMETER_INPUTS:
                others |= {*node_inputs, *before.get(other, ())}
        shared = others.intersection(found[name])
        if shared:
            found[name] = _direct_inputs(stages, found[name], shared, name)
    for name in TEXT_SIDES.keys() & found.keys():
        texts: list[Input] = []
        for node_input in found[name]:
            texts += apart_from_file_names(stages.graph, node_input)
        found[name] = texts


def _direct_inputs(
    stages: Stages, node_inputs: list[Input], shared: Collection[Input], parameter: str
) -> list[Input]:
    """Replace each shared literal by the inputs for this parameter that it reaches."""
    graph, names = stages.graph, PARAMETER_INPUTS[parameter].names
    readers: dict[Input, list[Input]] = {}
    for node_id in dict.fromkeys([*stages.main_settings, *stages.live]):
        for node_input in graph.links(node_id):
            literal = resolve_live_literal(graph, node_input) if node_input.name in names else None
            if literal is not None and literal in shared:
                readers.setdefault(literal, []).append(node_input)
    direct: list[Input] = []
    for node_input in node_inputs:
        direct += readers.get(node_input, [node_input])
    return list(dict.fromkeys(direct))
