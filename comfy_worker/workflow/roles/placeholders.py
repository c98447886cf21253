"""Finds placeholders such as ``%steps%``, which programs that fill workflows write as values."""

from __future__ import annotations

import re
from collections.abc import Iterable

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.parameter_inputs import PARAMETER_INPUTS, TEXT_SIDES
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["PLACEHOLDER", "PLACEHOLDER_WORDS", "find_placeholders"]

PLACEHOLDER = re.compile(r"%([a-z_]{2,30})%")
PLACEHOLDER_WORDS = {
    "model": "checkpoint",
    "scale": "cfg",
    "cfg_scale": "cfg",
    "sampler_name": "sampler",
    "positive": "prompt",
    "positive_prompt": "prompt",
    "negative": "negative_prompt",
}
PARAMETERS = {*TEXT_SIDES, *PARAMETER_INPUTS} - {"clip_skip"}


def find_placeholders(graph: TypedWorkflow, live: Iterable[str]) -> dict[str, list[Input]]:
    """Find, by parameter, the inputs with a placeholder such as ``%steps%`` as their value.

    A placeholder for a prompt may stand anywhere in a text.
    """
    found: dict[str, list[Input]] = {}
    for node_id in live:
        for input_name, value in graph.workflow[node_id]["inputs"].items():
            if not isinstance(value, str) or input_name == "filename_prefix":
                continue
            for word in dict.fromkeys(PLACEHOLDER.findall(value)):
                name = PLACEHOLDER_WORDS.get(word, word)
                is_alone = value.strip() == f"%{word}%"
                if name in TEXT_SIDES or (name in PARAMETERS and is_alone):
                    found.setdefault(name, []).append(Input(node_id, input_name))
    return found
