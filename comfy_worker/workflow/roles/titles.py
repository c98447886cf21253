"""Lets titles decide: a node titled ``prompt``, ``seed`` or ``input:NAME`` takes that parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from comfy_worker.workflow.graph import Input, title_of
from comfy_worker.workflow.roles.images import upload_inputs
from comfy_worker.workflow.roles.parameter_inputs import (
    PARAMETER_INPUTS,
    TEXT_SIDES,
    literals_of,
    written_inputs,
)
from comfy_worker.workflow.roles.text_inputs import text_inputs
from comfy_worker.workflow.roles.texts import TextReader
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["titled_inputs"]

ALIASES = {"positive": "prompt", "positive_prompt": "prompt", "negative": "negative_prompt"}
PICTURES = frozenset({"image", "mask"})
TITLES = PICTURES | {*PARAMETER_INPUTS, *TEXT_SIDES}


class _Title(NamedTuple):
    """The parameter that a title means, and whether the title says so with ``input:``."""

    parameter: str
    is_explicit: bool


def titled_inputs(
    graph: TypedWorkflow, live: Iterable[str], reader: TextReader
) -> dict[str, list[Input]]:
    """Return the inputs that titles claim.

    Args:
        graph: the workflow.
        live: the nodes that feed an output.
        reader: reads the texts of this workflow.

    Returns:
        By parameter name, the inputs of the nodes with that title. A title that fits none of its
        node's inputs claims nothing.
    """
    found: dict[str, dict[Input, None]] = {}
    for node_id in live:
        title = _read_title(title_of(graph.workflow, node_id))
        if title.is_explicit or title.parameter in TITLES:
            node_inputs = _fitting(graph, node_id, title, reader)
            found.setdefault(title.parameter, {}).update(dict.fromkeys(node_inputs))
    return {name: list(node_inputs) for name, node_inputs in found.items() if node_inputs}


def _read_title(title: str) -> _Title:
    prefix, colon, rest = title.strip().partition(":")
    is_explicit = bool(colon) and prefix.strip().lower() == "input"
    word = rest.strip() if is_explicit else re.sub(r"[\s-]+", "_", title.strip().lower())
    return _Title(ALIASES.get(word.lower(), word), is_explicit)


def _fitting(graph: TypedWorkflow, node_id: str, title: _Title, reader: TextReader) -> list[Input]:
    """Return the inputs that fit a parameter: by name, by role, else the only one of its type."""
    parameter = title.parameter
    if title.is_explicit:
        for node_input in graph.widgets(node_id):
            if node_input.name == parameter:
                return literals_of(graph, [node_input])
    if parameter in TEXT_SIDES:
        return _written_texts(graph, node_id, TEXT_SIDES[parameter], reader)
    if parameter in PICTURES:
        return literals_of(graph, upload_inputs(graph, node_id))
    if parameter in PARAMETER_INPUTS:
        node_inputs = written_inputs(graph, node_id, parameter)
        if node_inputs:
            return node_inputs
    return _only_fitting(graph, node_id, title)


def _written_texts(
    graph: TypedWorkflow, node_id: str, side: str, reader: TextReader
) -> list[Input]:
    node_inputs: list[Input] = []
    for text_input in text_inputs(graph, node_id, side):
        node_inputs += reader.written(text_input, side)
    return node_inputs


def _only_fitting(graph: TypedWorkflow, node_id: str, title: _Title) -> list[Input]:
    """Return the only literal of the parameter's type; of several the first, if it is explicit."""
    declared = graph.declared(node_id)
    if declared is not None and declared.is_output and not title.is_explicit:
        return []
    widgets = graph.widgets(node_id)
    if title.parameter in PARAMETER_INPUTS:
        types = PARAMETER_INPUTS[title.parameter].types
        widgets = [widget for widget in widgets if graph.type_of(widget) in types]
    node_inputs = literals_of(graph, widgets)
    return node_inputs[:1] if len(node_inputs) == 1 or title.is_explicit else []
