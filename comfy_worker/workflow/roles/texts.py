"""Finds the texts of a sampler: follows its conditioning back to the nodes that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from comfy_worker.workflow.graph import Input, Link, as_link, title_of
from comfy_worker.workflow.roles.bit_sets import union
from comfy_worker.workflow.roles.text_inputs import is_writer, of_side, polarity, text_inputs
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Fold, walk

__all__ = ["MAX_TEXTS", "Text", "TextReader"]

T = TypeVar("T")

# More texts than this for one input are not one prompt. The reader does not look at more.
MAX_TEXTS = 32

# The output of these classes no longer contains the text of the input. No declaration says so.
BLANKING_CLASSES = {"ConditioningZeroOut"}

# How the fixed half of a joined prompt begins if the text encoder is a language model (Lumina,
# Qwen), plain and in the markup of chats; and titles of nodes with a text beside the prompt.
INSTRUCTION = re.compile(r"\s*you are an? ", re.IGNORECASE)
CHAT_SYSTEM = re.compile(r"\s*(<[|]?[a-z_]+[|]?>)?\s*[\[<]?[|]?system\b", re.IGNORECASE)
BESIDE_TITLE = re.compile(r"system|instruction|trigger", re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """One literal text.

    Attributes:
        node_input: the input in which it is written.
        literal: the text, stripped.
        encoder: the text input that it reaches.
        clips: a bit for each node that the encoder's CLIP comes from.
    """

    node_input: Input
    literal: str
    encoder: Input
    clips: int = 0


class TextReader:
    """Walks from conditioning inputs up to the texts of one workflow.

    A side is ``positive`` or ``negative``. A node that holds the texts of both keeps the side from
    which the walk reached it, unless the name of the output in between says the other side.
    """

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._clip_numbers: dict[str, int] = {}
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
        links = []
        for start, side in starts:
            link = self._graph.link(start)
            if link:
                links.append((link, side))
        states = walk(links, self._conditioning_above, self._graph.check)
        return list(dict.fromkeys(link.node_id for link, _ in states))

    def written(self, node_input: Input, side: str) -> list[Input]:
        """Return the inputs that hold the text of an input.

        They are several if the text is joined from parts.
        """
        found = list(self._written((node_input, side)))
        # A copied node keeps the title of its original, so the text counts before the title.
        prompts = [part for part in found if not self._is_instruction(part)]
        titled = [part for part in prompts if not self._has_title_beside(part)]
        return titled or prompts or found

    def _is_instruction(self, part: Input) -> bool:
        text = str(self._graph.value(part))
        return any(pattern.match(text) for pattern in (INSTRUCTION, CHAT_SYSTEM))

    def _has_title_beside(self, part: Input) -> bool:
        title = title_of(self._graph.workflow, part.node_id)
        return BESIDE_TITLE.search(title) is not None

    def _encoded(self, node_id: str, side: str) -> tuple[Text, ...]:
        """Return the texts that a node encodes."""
        graph = self._graph
        clips = union(map(self._clips, graph.above(node_id, "CLIP")))
        texts = []
        for encoder in text_inputs(graph, node_id, side):
            for node_input in self.written(encoder, side):
                literal = str(graph.value(node_input)).strip()
                texts.append(Text(node_input, literal, encoder, clips))
        return tuple(texts)

    def _clip_bits(self, node_id: str, above: list[int]) -> int:
        if self._graph.linked(node_id, "CLIP"):
            return union(above)
        return 1 << self._clip_numbers.setdefault(node_id, len(self._clip_numbers))

    def _strings_above(self, state: tuple[Input, str]) -> list[tuple[Input, str]]:
        node_input, side = state
        link = self._graph.link(node_input)
        if link is None or is_writer(self._graph, link.node_id):
            return []
        side = self._side(link, side)
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
        if self._graph.class_type(link.node_id) in BLANKING_CLASSES:
            return []
        side = self._side(link, side)
        node_inputs = of_side(self._graph.linked(link.node_id, "CONDITIONING"), side)
        links = map(self._graph.link, node_inputs)
        return [(above, side) for above in links if above is not None]

    def _texts(self, state: tuple[Link, str], above: list[tuple[Text, ...]]) -> tuple[Text, ...]:
        link, side = state
        if self._graph.class_type(link.node_id) in BLANKING_CLASSES:
            return ()
        if self._graph.linked(link.node_id, "CONDITIONING"):
            return _joined(above)
        return self._encoded(link.node_id, self._side(link, side))

    def _side(self, link: Link, side: str) -> str:
        """Return the side that an output's name says, else the side that the walk came from."""
        return polarity(self._graph.output_name(link)) or side


def _joined(parts: Sequence[tuple[T, ...]]) -> tuple[T, ...]:
    """Join the parts and drop repeated entries; return at most one more than :data:`MAX_TEXTS`."""
    if len(parts) == 1:
        return parts[0]
    found = dict.fromkeys(entry for part in parts for entry in part)
    return tuple(found)[: MAX_TEXTS + 1]


def _without_blanks(texts: Sequence[Text]) -> list[Text]:
    """Leave out blank texts that are joined with others, but not other inputs of one encoder."""
    written = [text for text in texts if text.literal]
    return [text for text in texts if text.literal or not _is_joined(text, written)]


def _is_joined(text: Text, others: Iterable[Text]) -> bool:
    """Whether a text has the same input as one of the others, or another encoder."""
    encoder = text.encoder
    return any(
        encoder == other.encoder or encoder.node_id != other.encoder.node_id for other in others
    )
