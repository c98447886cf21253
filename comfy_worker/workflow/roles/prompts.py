"""Collects the prompts of all stages, and the inputs to write a prompt to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.parameter_inputs import TEXT_SIDES
from comfy_worker.workflow.roles.stages import Stage, Stages
from comfy_worker.workflow.roles.texts import Text
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["Prompts", "apart_from_file_names", "find_prompts"]


class Prompts:
    """The texts for one parameter.

    Attributes:
        texts: pairs of a stage's number and its text.
        unassigned: the inputs with a detailer's own texts, which do not change.
    """

    def __init__(self) -> None:
        self.texts: list[tuple[int, Text]] = []
        self.unassigned: list[Input] = []

    @property
    def node_inputs(self) -> list[Input]:
        """The inputs in which the texts are written, each once."""
        return list(dict.fromkeys(text.node_input for _, text in self.texts))

    @property
    def literals(self) -> set[str]:
        """The different texts."""
        return {text.literal for _, text in self.texts}

    def encoders(self) -> dict[Input, set[Input]]:
        """Return the encoders of each input with a text; leave out texts that are joined."""
        parts: dict[Input, set[Input]] = {}
        encoders: dict[Input, set[Input]] = {}
        for _, text in self.texts:
            parts.setdefault(text.encoder, set()).add(text.node_input)
            encoders.setdefault(text.node_input, set()).add(text.encoder)
        joined = {encoder for encoder, texts in parts.items() if len(texts) > 1}
        return {text_input: own for text_input, own in encoders.items() if own.isdisjoint(joined)}

    def move_to_encoders(self, text_inputs: Collection[Input]) -> None:
        """Set the texts of these inputs in their encoders instead."""
        moved = []
        for stage, text in self.texts:
            is_moved = text.node_input in text_inputs
            moved.append((stage, replace(text, node_input=text.encoder) if is_moved else text))
        self.texts = moved


def find_prompts(stages: Stages) -> dict[str, Prompts]:
    """Collect the texts of every stage, by parameter.

    A text that is positive and negative counts as positive, unless each side has an encoder of its
    own: then each side is set there.
    """
    prompts = {name: _prompts_of(stages, side) for name, side in TEXT_SIDES.items()}
    _separate(prompts["prompt"], prompts["negative_prompt"])
    positive = set(prompts["prompt"].node_inputs)
    negative = prompts["negative_prompt"]
    negative.texts = [pair for pair in negative.texts if pair[1].node_input not in positive]
    return prompts


def _separate(positive: Prompts, negative: Prompts) -> None:
    """Set a text that both sides share in the encoders of each side, unless it is joined."""
    positive_encoders, negative_encoders = positive.encoders(), negative.encoders()
    shared = {
        text_input
        for text_input in positive_encoders.keys() & negative_encoders.keys()
        if positive_encoders[text_input].isdisjoint(negative_encoders[text_input])
    }
    positive.move_to_encoders(shared)
    negative.move_to_encoders(shared)


def _prompts_of(stages: Stages, side: str) -> Prompts:
    prompts = Prompts()
    for stage in stages.main:
        number = stages.numbers[stage.node_id]
        prompts.texts += [(number, text) for text in _texts(stage, side)]
    known = prompts.literals
    own: dict[Input, None] = {}
    for stage in stages.retouches:
        for text in _texts(stage, side):
            if text.literal in known or not known:
                prompts.texts.append((stages.numbers[stage.node_id], text))
            else:
                own[text.node_input] = None
    prompts.unassigned = list(own)
    return prompts


def _texts(stage: Stage, side: str) -> Sequence[Text]:
    return stage.positive if side == "positive" else stage.negative


def apart_from_file_names(graph: TypedWorkflow, node_input: Input) -> list[Input]:
    """Return the inputs to write a prompt to, so that it does not become a file name.

    They are those behind a node that gives its text both to a prompt and to a ``filename_prefix``.
    """
    readers: list[Input] = []
    sources = [] if graph.links(node_input.node_id) else [node_input.node_id]
    for source in sources:
        for reader in _reading_inputs(graph, source):
            passes_on = len(graph.inputs(reader.node_id)) == 1
            if not passes_on:
                readers.append(reader)
            elif reader.node_id not in sources and graph.is_read(reader.node_id):
                sources.append(reader.node_id)
    texts = [reader for reader in readers if reader.name != "filename_prefix"]
    is_prefix = len(texts) < len(readers)
    return list(dict.fromkeys(texts)) if texts and is_prefix else [node_input]


def _reading_inputs(graph: TypedWorkflow, node_id: str) -> list[Input]:
    """Return the inputs that read a node, with its readers in their order."""
    found = []
    for reader in graph.fed_by(node_id):
        for node_input, link in graph.links(reader).items():
            if link.node_id == node_id:
                found.append(node_input)
    return found
