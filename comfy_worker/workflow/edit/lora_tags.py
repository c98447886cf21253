"""Reads the ``<lora:...>`` tags of a prompt and removes them from it.

A1111's ``<lyco:...>`` means the same: ComfyUI loads a LyCORIS file as a LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from comfy_worker.errors import InvalidValue, brief
from comfy_worker.workflow.edit.lora import LoraSpec

__all__ = ["parse_tags"]

TAG = re.compile(r"<(?:lora|lyco):[^<>]*>", re.IGNORECASE)
HYPERNETWORK = re.compile(r"<hypernet:[^<>]*>", re.IGNORECASE)
# What may separate the tags of one group.
BETWEEN_TAGS = re.compile(r"[\s,]*")
COMMA_AFTER = re.compile(r"[ \t]*,[ \t]*")
BLANKS_AFTER = re.compile(r"[ \t]*")
BLANKS = " \t"

Span = tuple[int, int]


def parse_tags(prompt: str) -> tuple[str, list[LoraSpec]]:
    """Remove the ``<lora:name:strength:strength_clip>`` tags from a prompt.

    The blanks and the comma that only a tag needed are removed with it. The rest of the prompt
    stays as it is.

    Args:
        prompt: the text as the client wrote it. Both strengths are optional.

    Returns:
        The prompt without its tags, and the LoRAs in their order.

    Raises:
        InvalidValue: a tag has no name, too many parts, or a strength that is not a number; or it
            asks for a hypernetwork.
    """
    hypernetwork = HYPERNETWORK.search(prompt)
    if hypernetwork is not None:
        tag = brief(hypernetwork.group())
        raise InvalidValue(
            f"prompt has the tag {tag}, but hypernetworks cannot be added to a workflow; leave the "
            "tag out, or send a workflow with a HypernetworkLoader node",
            [{"key": "prompt", "value": tag}],
        )
    spans = [found.span() for found in TAG.finditer(prompt)]
    if not spans:
        return prompt, []
    loras = [_read_tag(prompt[start:end]) for start, end in spans]
    return _without_groups(prompt, _grouped(prompt, spans)), loras


def _read_tag(tag: str) -> LoraSpec:
    name, *strengths = (part.strip() for part in tag[1:-1].split(":")[1:])
    try:
        if name and len(strengths) <= 2:
            return LoraSpec(name, *map(float, strengths))
    except ValueError:
        pass
    raise InvalidValue(
        f"prompt has the tag {brief(tag)}; write <lora:name>, <lora:name:strength> or "
        "<lora:name:strength:strength_clip> with numbers for the strengths",
        [{"key": "prompt", "value": brief(tag)}],
    )


def _grouped(prompt: str, spans: Iterable[Span]) -> list[Span]:
    """Join the spans of tags that only blanks and commas separate."""
    groups: list[Span] = []
    for start, end in spans:
        if groups and BETWEEN_TAGS.fullmatch(prompt, groups[-1][1], start):
            groups[-1] = (groups[-1][0], end)
        else:
            groups.append((start, end))
    return groups


def _without_groups(prompt: str, groups: Sequence[Span]) -> str:
    """Return the prompt without its tags; the texts beside a tag keep one separator.

    This reads the prompt once, from tag to tag. A pattern that tried each blank as a beginning
    would take quadratic time.
    """
    text_end = len(prompt.rstrip())
    pieces: list[str] = []
    position = 0
    for start, end in groups:
        head = prompt[position:start]
        text = head.rstrip(BLANKS)
        comma = COMMA_AFTER.match(prompt, end)
        is_first = position == 0 and not head.strip()
        is_last = comma is None and end >= text_end
        body = text[:-1].rstrip(BLANKS) if text.endswith(",") else text
        if is_first:
            body = ""
        if is_last:
            position = len(prompt)
            separator = ""
        elif comma is not None:
            position = comma.end()
            separator = comma.group()
        else:
            blanks = BLANKS_AFTER.match(prompt, end)
            assert blanks is not None
            position = blanks.end()
            separator = text[len(body) :] + (head[len(text) :] or blanks.group())
        pieces += [body, "" if is_first else separator]
    return "".join([*pieces, prompt[position:]])
