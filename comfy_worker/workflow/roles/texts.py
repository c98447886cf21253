"""Finds the texts of a sampler: follows its conditioning back to the nodes that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from comfy_worker.workflow.graph import Fold, Input, Link, as_link, title_of, walk
from comfy_worker.workflow.tracing import LOOKED_AT, TypedWorkflow

T = TypeVar("T")

__all__ = ["MAX_TEXTS", "Text", "TextReader", "conflicting", "polarity", "text_inputs"]

# So many texts for one input do not mean one prompt; what lies beyond is not looked at.
MAX_TEXTS = 32

# Its output no longer holds the text that its input held; nothing in its declaration says so.
BLANKING = {"ConditioningZeroOut"}

# Names that carry the prompt itself, and names of what is beside it (a system prompt, a search pattern).
TEXTUAL = re.compile(
    r"(^|_)(prompt|text|caption|tag)s?(\d|_|$)|^(positive|negative)$",
    re.IGNORECASE,
)
SECONDARY = re.compile(
    r"system|find|replace|pattern|delimiter|separator|exclude|tidy|whitespace|mode|(^|_)(path|file|filename)(_|$)",
    re.IGNORECASE,
)

# How the fixed half of a concatenated prompt begins where the text encoder is a language model (Lumina, Qwen).
INSTRUCTION = re.compile(r"\s*you are an? ", re.IGNORECASE)

# The same in the markup of chats, and titles of what is put beside a prompt.
CHAT_SYSTEM = re.compile(r"\s*(<[|]?[a-z_]+[|]?>)?\s*[\[<]?[|]?system\b", re.IGNORECASE)
BESIDE_TITLE = re.compile(r"system|instruction|trigger", re.IGNORECASE)

# What a text tool looks for where the prompt goes in: `{prompt}`, `USER_INPUT`, not `{width}` nor `SYSTEM_PROMPT`.
PROMPT_SLOT = re.compile(r"prompt|user|input|query|idea|caption|text", re.IGNORECASE)
FIELD = re.compile(r"\{[a-z]\}")

# ComfyUI's own language models: what they are given is the prompt, unless it is a question about a picture.
ENHANCERS = re.compile(r"^TextGenerate")
QUESTION = re.compile(
    r"\s*(please )?(describe|caption|transcribe|list|analy[sz]e|what|which|tag)\b", re.IGNORECASE
)

# A node that makes a text of its own out of what it looks at or out of a question: by what is linked to it, by
# what only a language model takes, by its class's name.
MODEL_SETTINGS = frozenset(
    {
        "temperature",
        "max_tokens",
        "max_new_tokens",
        "max_output_tokens",
        "num_predict",
        "top_p",
        "top_k",
        "num_beams",
    }
)
WRITERS = re.compile(
    r"llm|gpt|ollama|gemini|claude|openai|anthropic|llava|mistral|deepseek|groq"
    r"|caption(er|ing)|interrogat|tagger|florence|blip|moondream|minicpm|vlm|qwen.*vl",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Text:
    """One literal text.

    Attributes:
        node_input: where it is written.
        literal: what is written there, stripped.
        encoder: the text input that it reaches.
        clips: a bit for each node that the encoder's CLIP comes from.
    """

    node_input: Input
    literal: str
    encoder: Input
    clips: int = 0


def polarity(name: str) -> str | None:
    """Whether a name says ``positive`` or ``negative``."""
    found = re.search(r"pos(?=itive|_|$)|neg(?=ative|_|$)", name.lower())
    return {"pos": "positive", "neg": "negative"}[found.group()] if found else None


class TextReader:
    """Walks from conditioning inputs up to the texts of one workflow.

    A side is ``positive`` or ``negative``; a node that holds both is left on the side that it was reached from,
    unless the name of the output in between says otherwise.
    """

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._bits: dict[str, int] = {}
        self._clips = Fold(
            lambda node_id: graph.above(node_id, "CLIP"), self._clip_bits, graph.check
        )
        self._written = Fold(self._strings_above, self._literals, graph.check)
        self._read = Fold(self._conditioning_above, self._texts, graph.check)

    def read(self, start: Input, side: str) -> list[Text]:
        """Return the texts that feed a conditioning input, in order.

        Leave out blank ones if there are others.
        """
        link = self._graph.link(start)
        return _without_blanks(self._read((link, side))) if link else []

    def nodes(self, starts: Iterable[tuple[Input, str]]) -> list[str]:
        """Return the nodes between conditioning inputs and their texts.

        Args:
            starts: pairs of a conditioning input and its side.
        """
        links = ((self._graph.link(start), side) for start, side in starts)
        states = walk(
            ((link, side) for link, side in links if link),
            self._conditioning_above,
            self._graph.check,
        )
        return list(dict.fromkeys(link.node_id for link, _ in states))

    def written(self, node_input: Input, side: str) -> list[Input]:
        """Return the inputs that hold the text of an input.

        They are several if the text is joined from parts.
        """
        found = self._written((node_input, side))
        prompts = [part for part in found if not self._is_beside(part)]
        return prompts or list(found)

    def _is_beside(self, part: Input) -> bool:
        """Whether a text is joined to the prompt: an instruction, a trigger word."""
        text = str(self._graph.value(part))
        if INSTRUCTION.match(text) or CHAT_SYSTEM.match(text):
            return True
        title = title_of(self._graph.workflow, part.node_id)
        return bool(BESIDE_TITLE.search(title))

    def encoded(self, node_id: str, side: str) -> list[Text]:
        """Return the texts that a node encodes."""
        graph = self._graph
        clips = 0
        for loader in graph.above(node_id, "CLIP"):
            clips |= self._clips(loader)
        return [
            Text(node_input, str(graph.value(node_input)).strip(), encoder, clips)
            for encoder in text_inputs(graph, node_id, side)
            for node_input in self.written(encoder, side)
        ]

    def _clip_bits(self, node_id: str, above: list[int]) -> int:
        if not self._graph.linked(node_id, "CLIP"):
            return 1 << self._bits.setdefault(node_id, len(self._bits))
        bits = 0
        for other in above:
            bits |= other
        return bits

    def _strings_above(self, state: tuple[Input, str]) -> list[tuple[Input, str]]:
        node_input, side = state
        link = self._graph.link(node_input)
        if link is None or _is_writer(self._graph, link.node_id):
            return []
        side = polarity(self._graph.output_name(link)) or side
        return [(above, side) for above in text_inputs(self._graph, link.node_id, side)]

    def _literals(
        self, state: tuple[Input, str], above: list[tuple[Input, ...]]
    ) -> tuple[Input, ...]:
        node_input, _ = state
        if as_link(self._graph.value(node_input)) is None:
            return (node_input,)
        return _joined(above)

    def _conditioning_above(self, state: tuple[Link, str]) -> list[tuple[Link, str]]:
        link, side = state
        if self._graph.workflow[link.node_id]["class_type"] in BLANKING:
            return []
        side = polarity(self._graph.output_name(link)) or side
        node_inputs = _of_side(self._graph.linked(link.node_id, "CONDITIONING"), side)
        return [
            (above, side) for node_input in node_inputs if (above := self._graph.link(node_input))
        ]

    def _texts(self, state: tuple[Link, str], above: list[tuple[Text, ...]]) -> tuple[Text, ...]:
        link, side = state
        if self._graph.workflow[link.node_id]["class_type"] in BLANKING:
            return ()
        if self._graph.linked(link.node_id, "CONDITIONING"):
            return _joined(above)
        side = polarity(self._graph.output_name(link)) or side
        return tuple(self.encoded(link.node_id, side))


def _joined(parts: Sequence[tuple[T, ...]]) -> tuple[T, ...]:
    """Join the parts and drop repeated entries; return at most one more than :data:`MAX_TEXTS`."""
    if len(parts) == 1:
        return parts[0]
    found = dict.fromkeys(entry for part in parts for entry in part)
    return tuple(found)[: MAX_TEXTS + 1]


def text_inputs(graph: TypedWorkflow, node_id: str, side: str) -> list[Input]:
    """Return the inputs of a node that take the prompt of a side.

    It looks at the polarity, then at the declaration, then at the name.

    A node that reads a picture and outputs a text (a tagger) has no such input: it computes its
    text.
    """
    is_text_tool = graph.gives_only(node_id, "STRING")
    if is_text_tool and graph.linked(node_id, "IMAGE") and not is_enhancer(graph, node_id):
        return []
    inputs = graph.workflow[node_id]["inputs"]
    branch = graph.branch(node_id)
    if branch is not None:
        return [branch]
    if {"string", "find", "replace"} <= inputs.keys():
        return [Input(node_id, "replace" if _is_prompt_slot(graph, node_id) else "string")]
    if "f_string" in inputs:
        return _formatted(graph, node_id)
    strings = [
        node_input for node_input in graph.widgets(node_id) if graph.type_of(node_input) == "STRING"
    ]
    strings = [node_input for node_input in strings if not SECONDARY.search(node_input.name)]
    strings = _of_side(strings, side)
    long = [
        node_input
        for node_input in strings
        if graph.link(node_input) or _is_long(graph, node_input)
    ]
    strings = long or strings
    return [node_input for node_input in strings if TEXTUAL.search(node_input.name)] or strings


def _is_prompt_slot(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a find-and-replace node looks for a placeholder such as ``{prompt}``."""
    find = graph.values(Input(node_id, "find"))
    return isinstance(find, str) and bool(PROMPT_SLOT.search(find)) and not SECONDARY.search(find)


def _formatted(graph: TypedWorkflow, node_id: str) -> list[Input]:
    """Return the texts that a pattern such as ``{a}, sharp`` inserts, else the pattern."""
    pattern = Input(node_id, "f_string")
    texts = [
        node_input
        for node_input in graph.inputs(node_id)
        if node_input != pattern and graph.type_of(node_input) == "STRING"
    ]
    takes = FIELD.search(str(graph.values(pattern)))
    return texts if texts and takes else [pattern]


def is_enhancer(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node is a language model that rewrites the prompt."""
    if not ENHANCERS.search(graph.workflow[node_id]["class_type"]):
        return False
    text = graph.values(Input(node_id, "prompt"))
    return not (isinstance(text, str) and QUESTION.match(text) and graph.typed(node_id, *LOOKED_AT))


def conflicting(texts: Sequence[tuple[int, Text]], comparable: Mapping[int, int]) -> bool:
    """Whether the texts of several stages are more than one prompt.

    These count as one prompt: equal texts, the inputs of one encoder (``clip_l`` and ``t5xxl``),
    and the texts of two stages of one image that have their own text encoders (base and refiner).

    Args:
        texts: pairs of a stage's number and its text.
        comparable: by stage, a bit for each stage that works on the same image before or after it.
    """
    by_literal: dict[str, _Readers] = {}
    for stage, text in texts:
        by_literal.setdefault(text.literal, _Readers()).add(stage, text)
    if len(by_literal) > MAX_TEXTS:
        return True
    groups = list(by_literal.values())
    return any(
        text.conflicts(other, comparable)
        for index, text in enumerate(groups)
        for other in groups[index + 1 :]
    )


class _Readers:
    """The encoders that read one text, each with its text inputs, CLIP bits and stage bits."""

    def __init__(self) -> None:
        self.inputs: dict[str, set[Input]] = {}
        self.clips: dict[str, int] = {}
        self.stages: dict[str, int] = {}

    def add(self, stage: int, text: Text) -> None:
        encoder = text.encoder.node_id
        self.inputs.setdefault(encoder, set()).add(text.encoder)
        self.clips[encoder] = self.clips.get(encoder, 0) | text.clips
        self.stages[encoder] = self.stages.get(encoder, 0) | 1 << stage

    def conflicts(self, other: _Readers, comparable: Mapping[int, int]) -> bool:
        """Whether two texts are different prompts.

        They are if they share an input, a CLIP or a stage, or if their stages work on different
        images.
        """
        for encoder, inputs in self.inputs.items():
            if not inputs.isdisjoint(other.inputs.get(encoder, ())):
                return True
        clips, stages = _Bits(other.clips), _Bits(other.stages)
        for encoder, own in self.stages.items():
            if self.clips[encoder] & clips.without(encoder):
                return True
            others = stages.without(encoder)
            if own & others:
                return True
            if others and any(others & ~comparable[stage] for stage in _numbers(own)):
                return True
        return False


class _Bits:
    """Combines the bits of several encoders; can leave out any one encoder."""

    def __init__(self, bits: Mapping[str, int]) -> None:
        self._bits = bits
        self._once = self._twice = 0
        for own in bits.values():
            self._twice |= self._once & own
            self._once |= own

    def without(self, encoder: str) -> int:
        only_there = self._bits.get(encoder, 0) & ~self._twice
        return self._once & ~only_there


def _numbers(bits: int) -> Iterable[int]:
    """Yield the positions of the bits that are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _is_writer(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node writes a new text: a tagger, a captioner, a language model."""
    if is_enhancer(graph, node_id):
        return False
    if graph.typed(node_id, *LOOKED_AT):
        return True
    node = graph.workflow[node_id]
    declared = graph.declared(node_id)
    if declared is not None and declared.is_api:
        return True
    return bool(WRITERS.search(node["class_type"])) or not MODEL_SETTINGS.isdisjoint(node["inputs"])


def _of_side(node_inputs: list[Input], side: str) -> list[Input]:
    """Return the inputs whose name says this side.

    If there are none, return the inputs whose name says no side.
    """
    sides = [polarity(node_input.name) for node_input in node_inputs]
    mine = [node_input for node_input, word in zip(node_inputs, sides, strict=True) if word == side]
    return mine or [
        node_input for node_input, word in zip(node_inputs, sides, strict=True) if word is None
    ]


def _is_long(graph: TypedWorkflow, node_input: Input) -> bool:
    spec = graph.spec(node_input)
    return spec is not None and bool(
        spec.options.get("multiline") or spec.options.get("dynamicPrompts")
    )


def _without_blanks(texts: Sequence[Text]) -> list[Text]:
    """Leave out blank texts that are combined with others, but not the other inputs of one encoder."""

    def combined(text: Text, other: Text) -> bool:
        return text.encoder == other.encoder or text.encoder.node_id != other.encoder.node_id

    return [
        text
        for text in texts
        if text.literal
        or not any(other_text.literal and combined(text, other_text) for other_text in texts)
    ]
