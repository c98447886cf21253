"""What the titles of nodes decide: a node titled ``prompt``, ``seed`` or ``input:NAME`` takes that parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable

from comfy_worker.workflow.graph import Input, title_of
from comfy_worker.workflow.roles.stages import NAMES, named
from comfy_worker.workflow.roles.texts import TextReader, text_inputs
from comfy_worker.workflow.tracing import TypedWorkflow, resolve_live_literal

__all__ = ["TEXTS", "titled_inputs"]

# The parameters that are texts, and the side of the sampler that each is for.
TEXTS = {"prompt": "positive", "negative_prompt": "negative"}
ALIASES = {"positive": "prompt", "positive_prompt": "prompt", "negative": "negative_prompt"}


def titled_inputs(
    graph: TypedWorkflow, live: Iterable[str], reader: TextReader
) -> dict[str, list[Input]]:
    """The places that titles claim.

    Args:
        graph: the workflow.
        live: the nodes that feed an output.
        reader: reads the texts of this workflow.

    Returns:
        By parameter name the inputs of the nodes so titled; a title that no input of its node fits claims nothing.
    """
    found: dict[str, dict[Input, None]] = {}
    for node_id in live:
        name, is_explicit = _parameter(title_of(graph.workflow, node_id))
        if is_explicit or name in NAMES or name in TEXTS or name in {"image", "mask"}:
            node_inputs = _fitting(graph, node_id, name, is_explicit, reader)
            found.setdefault(name, {}).update(dict.fromkeys(node_inputs))
    return {name: list(node_inputs) for name, node_inputs in found.items() if node_inputs}


def _parameter(title: str) -> tuple[str, bool]:
    """The parameter that a title means, and whether it says so by ``input:``."""
    prefix, colon, rest = title.strip().partition(":")
    is_explicit = bool(colon) and prefix.strip().lower() == "input"
    word = rest.strip() if is_explicit else re.sub(r"[\s-]+", "_", title.strip().lower())
    return ALIASES.get(word.lower(), word), is_explicit


def _fitting(
    graph: TypedWorkflow, node_id: str, name: str, is_explicit: bool, reader: TextReader
) -> list[Input]:
    """The inputs of a node that a parameter fits: by its name, by its role, else the only one of its type."""
    own = [node_input for node_input in graph.widgets(node_id) if node_input.name == name]
    if own and is_explicit:
        return [node_input for node_input in (resolve_live_literal(graph, own[0]),) if node_input]
    if name in TEXTS:
        side = TEXTS[name]
        return [
            node_input
            for text_input in text_inputs(graph, node_id, side)
            for node_input in reader.written(text_input, side)
        ]
    if name in {"image", "mask"}:
        uploads = [
            p
            for p in graph.inputs(node_id)
            if (spec := graph.spec(p)) and spec.options.get("image_upload")
        ]
        return [
            node_input
            for node_input in (resolve_live_literal(graph, text_input) for text_input in uploads)
            if node_input
        ]
    if name in NAMES and (node_inputs := named(graph, node_id, name)):
        return node_inputs
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    if declared is not None and declared.is_output and not is_explicit:
        return []
    types = NAMES[name][1] if name in NAMES else None
    widgets = [
        node_input
        for node_input in graph.widgets(node_id)
        if types is None or graph.type_of(node_input) in types
    ]
    node_inputs = [
        node_input
        for node_input in (resolve_live_literal(graph, text_input) for text_input in widgets)
        if node_input
    ]
    return node_inputs if len(node_inputs) == 1 else node_inputs[:1] if is_explicit else []
