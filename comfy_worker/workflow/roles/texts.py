"""Which texts a sampler is given: from its conditioning up to the nodes in which they are written.

Owns the walk along CONDITIONING and STRING links, and the rule when several texts mean the same. Knows nothing of
other parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from comfy_worker.workflow.graph import Input, as_link
from comfy_worker.workflow.tracing import Graph

__all__ = ["Reading", "Text", "conflicting", "polarity", "read_texts", "text_inputs", "written"]

# Its output no longer holds the text that its input held; nothing in its declaration says so.
BLANKING = {"ConditioningZeroOut"}

# Names that carry the prompt itself, and names of what is beside it (a system prompt, a search pattern).
TEXTUAL = re.compile(r"(^|_)(prompt|text|caption|tag)s?(\d|_|$)", re.IGNORECASE)
SECONDARY = re.compile(
    r"system|find|replace|pattern|delimiter|separator|exclude|tidy|whitespace|mode|(^|_)(path|file|filename)(_|$)",
    re.IGNORECASE,
)

# How the fixed half of a concatenated prompt begins where the text encoder is a language model (Lumina, Qwen).
INSTRUCTION = re.compile(r"\s*you are an? ", re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """One literal text.

    Attributes:
        place: where it is written.
        literal: what is written there, stripped.
        encoder: the text input that it reaches.
        clips: the nodes that the encoder's CLIP comes from.
    """

    place: Input
    literal: str
    encoder: Input
    clips: frozenset[str] = frozenset()


@dataclass
class Reading:
    """What lies above one conditioning input: its texts, and every node passed on the way."""

    texts: list[Text] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)


def polarity(name: str) -> str | None:
    """Whether a name says ``positive`` or ``negative``."""
    found = re.search(r"pos(?=itive|_|$)|neg(?=ative|_|$)", name.lower())
    return {"pos": "positive", "neg": "negative"}[found.group()] if found else None


def read_texts(graph: Graph, start: Input, side: str) -> Reading:
    """Walk from a conditioning input up to the texts.

    Args:
        graph: the workflow.
        start: takes a CONDITIONING.
        side: ``positive`` or ``negative``; a node that holds both is left on this side, unless the name of the
            output in between says otherwise.

    Returns:
        The texts in the order of the graph, blank ones left out where there are others.
    """
    reading = Reading()
    row = [(graph.link(start), side)]
    seen = set()
    while row:
        link, side = row.pop(0)
        if link is None or (link, side) in seen:
            continue
        seen.add((link, side))
        reading.nodes.append(link.node_id)
        if graph.workflow[link.node_id]["class_type"] in BLANKING:
            continue
        side = polarity(graph.output_name(link)) or side
        above = graph.linked(link.node_id, "CONDITIONING")
        row += [(graph.link(place), side) for place in _of_side(above, side)]
        if not above:
            reading.texts += _encoded(graph, link.node_id, side)
    reading.texts = _without_blanks(reading.texts)
    return reading


def text_inputs(graph: Graph, node_id: str, side: str) -> list[Input]:
    """The inputs of a node that take the prompt of a side: by polarity, then by declaration, then by name.

    None of a node that reads a picture and gives a text (a tagger): its text is computed.
    """
    if graph.linked(node_id, "IMAGE") and graph.gives_only(node_id, "STRING"):
        return []
    strings = [place for place in graph.widgets(node_id) if graph.type_of(place) == "STRING"]
    strings = [place for place in strings if not SECONDARY.search(place.name)]
    strings = _of_side(strings, side)
    long = [place for place in strings if graph.link(place) or _is_long(graph, place)]
    strings = long or strings
    return [place for place in strings if TEXTUAL.search(place.name)] or strings


def written(graph: Graph, place: Input, side: str) -> list[Input]:
    """Where the text that reaches an input is written: one place, or each part of it."""
    found: list[Input] = []
    row = [(place, side)]
    seen = set()
    while row:
        place, side = row.pop(0)
        if place in seen:
            continue
        seen.add(place)
        link = graph.link(place)
        if link is not None:
            side = polarity(graph.output_name(link)) or side
            row += [(above, side) for above in text_inputs(graph, link.node_id, side)]
        elif as_link(graph.value(place)) is None:
            found.append(place)
    return [part for part in found if not INSTRUCTION.match(str(graph.value(part)))] or found


def conflicting(texts: Iterable[tuple[str, Text]], chained: Callable[[str, str], bool]) -> bool:
    """Whether texts, each with the stage that it is for, do not all mean the same.

    Equal texts do. So do the inputs of one encoder (``clip_l`` and ``t5xxl``), and those of two stages of one
    image that have text encoders of their own (base and refiner).

    Args:
        texts: pairs of a stage and its text.
        chained: whether two stages work on one image, one after the other.
    """
    known = list(texts)
    return any(
        _differ(one, other, stage == after, chained(stage, after))
        for index, (stage, one) in enumerate(known)
        for after, other in known[index + 1 :]
    )


def _differ(one: Text, other: Text, same_stage: bool, chained: bool) -> bool:
    if one.place == other.place or one.literal == other.literal:
        return False
    if one.encoder.node_id == other.encoder.node_id:
        return one.encoder == other.encoder
    return same_stage or not chained or not one.clips.isdisjoint(other.clips)


def _of_side(places: list[Input], side: str) -> list[Input]:
    """Those of the inputs that a side is about: those that say so, else those that say nothing."""
    sides = [polarity(place.name) for place in places]
    mine = [place for place, word in zip(places, sides, strict=True) if word == side]
    return mine or [place for place, word in zip(places, sides, strict=True) if word is None]


def _is_long(graph: Graph, place: Input) -> bool:
    spec = graph.spec(place)
    return spec is not None and bool(spec.options.get("multiline") or spec.options.get("dynamicPrompts"))


def _encoded(graph: Graph, node_id: str, side: str) -> list[Text]:
    clips = frozenset(
        graph.sources([Input(node_id, place.name) for place in graph.linked(node_id, "CLIP")], "CLIP")
    )
    return [
        Text(place, str(graph.value(place)).strip(), encoder, clips)
        for encoder in text_inputs(graph, node_id, side)
        for place in written(graph, encoder, side)
    ]


def _without_blanks(texts: list[Text]) -> list[Text]:
    """Leave out blank texts that are combined with others, but not the other inputs of one encoder."""

    def combined(one: Text, other: Text) -> bool:
        return one.encoder == other.encoder or one.encoder.node_id != other.encoder.node_id

    return [one for one in texts if one.literal or not any(two.literal and combined(one, two) for two in texts)]
