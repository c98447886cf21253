"""Decides whether the texts of several stages are one prompt or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.bit_sets import BitsByKey, bit_numbers
from comfy_worker.workflow.roles.texts import MAX_TEXTS, Text

__all__ = ["conflicting"]


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
    pairs = combinations(by_literal.values(), 2)
    return any(text.conflicts(other, comparable) for text, other in pairs)


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
        clips, stages = BitsByKey(other.clips), BitsByKey(other.stages)
        for encoder, own in self.stages.items():
            others = stages.without(encoder)
            if self.clips[encoder] & clips.without(encoder) or own & others:
                return True
            if any(others & ~comparable[stage] for stage in bit_numbers(own)):
                return True
        return False
