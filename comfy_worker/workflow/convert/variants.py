"""Resolves ``{a|b}`` and comments in texts, as the frontend does in an export.

Each function reads a text once, so that the cost of any text is linear in its length.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["MAX_VARIANT_TEXT", "choose_variants", "is_too_long"]

MAX_VARIANT_TEXT = 200_000

SPECIAL = re.compile(r"[{\\]|/[*/]")
COMMENT_BEGIN = re.compile(r"/[*/]")
# Where a line ends for the frontend.
LINE_END = re.compile("[\n\r\u2028\u2029]")
PIECE = re.compile(r"\\[\s\S]|[{}|]|[^\\{}|]+|\\")
ESCAPED = re.compile(r"\\([{}|])")


def is_too_long(text: str) -> bool:
    """Return whether a text is too long to be resolved; a text with nothing to resolve never is."""
    return len(text) > MAX_VARIANT_TEXT and SPECIAL.search(text) is not None


def choose_variants(text: str, generator: random.Random) -> str:
    """Remove comments and choose one of each ``{a|b}``; an open block ends with the text."""
    # Each open block has choices, and each choice has parts: strings, and lists of further parts.
    # A chosen list goes into the outer block as it is: copying it once for each block around it
    # would make the cost quadratic.
    blocks: list[list[list[Any]]] = [[[]]]
    for match in PIECE.finditer("".join(_without_comments(text))):
        piece = match.group()
        if piece == "{":
            blocks.append([[]])
        elif piece == "|" and len(blocks) > 1:
            blocks[-1].append([])
        elif piece == "}" and len(blocks) > 1:
            _close(blocks, generator)
        else:
            blocks[-1][-1].append(piece)
    while len(blocks) > 1:
        _close(blocks, generator)
    return ESCAPED.sub(r"\1", "".join(_strings(blocks[0][0])))


def _close(blocks: list[list[list[Any]]], generator: random.Random) -> None:
    """Choose from the innermost block."""
    choices = blocks.pop()
    blocks[-1][-1].append(generator.choice(choices))


def _strings(parts: list[Any]) -> Iterator[str]:
    """Yield the strings in nested lists, in their order."""
    rest = [iter(parts)]
    while rest:
        part = next(rest[-1], None)
        if part is None:
            rest.pop()
        elif isinstance(part, str):
            yield part
        else:
            rest.append(iter(part))


def _without_comments(text: str) -> Iterator[str]:
    """Yield the parts of a text between ``/* ... */`` and ``// ...``."""
    begin, search_from = 0, 0
    is_block_closed = True
    while (comment := COMMENT_BEGIN.search(text, search_from)) is not None:
        if comment.group() == "//":
            line_end = LINE_END.search(text, comment.end())
            end = len(text) if line_end is None else line_end.start()
        else:
            end = text.find("*/", comment.end()) + len("*/") if is_block_closed else 1
            if end < comment.end():  # this comment is never closed, nor is a later one
                is_block_closed = False
                search_from = comment.start() + 1
                continue
        yield text[begin : comment.start()]
        begin = search_from = end
    yield text[begin:]
