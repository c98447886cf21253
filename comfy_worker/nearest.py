"""Finds the known names that a mistyped name may mean, for every "did you mean" of the worker.

A wrong hint is worse than no hint, so all hints use the same cut-off. The cost is bounded, because
a client may send long words, and a machine may have thousands of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice

__all__ = ["MAX_HINTS", "did_you_mean", "nearest"]

# The share of common letters, as `difflib` counts it, that makes a name near: `id` and `width` have
# 0.57.
LIKENESS = 0.7
# How many findings of one error get a hint. Nobody reads more.
MAX_HINTS = 20
LONGEST_WORD = 64
MAX_NAMES = 5_000
MAX_COMPARED = 100
SHORTEST_PART = 3
SHORTEST_BEGINNING = 4


def nearest(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return the names that are near a word, best first; upper and lower case are equal.

    A name is near if it has nearly the same letters, if it begins with the word, or if one of the
    two has all parts of the other (`seed` and `noise_seed`).

    Args:
        word: as a client wrote it; only the first 64 characters count.
        names: the known names; only the first 5,000 count.
        count: the most names to return.
    """
    wanted = word[:LONGEST_WORD].casefold()
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    candidates = []
    for position, name in enumerate(dict.fromkeys(islice(names, MAX_NAMES))):
        known = name[:LONGEST_WORD].casefold()
        if _is_beginning(wanted, known) or _has_parts_of(wanted, known):
            candidates.append((1.0, position, name, known))
            continue
        matcher.set_seq1(known)
        if matcher.real_quick_ratio() >= LIKENESS and (bound := matcher.quick_ratio()) >= LIKENESS:
            candidates.append((bound, position, name, known))
    candidates.sort(key=lambda candidate: (-candidate[0], candidate[1]))
    near = []
    for _bound, position, name, known in candidates[:MAX_COMPARED]:
        matcher.set_seq1(known)
        likeness = matcher.ratio()
        if likeness >= LIKENESS or _is_related(wanted, known):
            near.append((likeness, position, name))
    near.sort(key=lambda found: (-found[0], found[1]))
    return [name for _likeness, _position, name in near[:count]]


def did_you_mean(word: str, names: Iterable[str], otherwise: str, count: int = 3) -> str:
    """Return the end of an error's sentence: the names that are near a word, if there are any.

    Args:
        word: as a client wrote it.
        names: the known names.
        otherwise: what to say if no name is near.
        count: the most names to return.
    """
    near = nearest(word, names, count)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def _is_related(word: str, name: str) -> bool:
    return _is_beginning(word, name) or _has_parts_of(word, name) or _has_same_letters(word, name)


def _is_beginning(word: str, name: str) -> bool:
    return len(word) >= SHORTEST_BEGINNING and name.startswith(word)


def _parts(name: str) -> set[str]:
    return {part for part in re.split(r"[\W_]+", name) if len(part) >= SHORTEST_PART}


def _has_parts_of(word: str, name: str) -> bool:
    """Whether one of the two has all parts of the other."""
    parts, others = _parts(word), _parts(name)
    return bool(parts and others) and (parts <= others or others <= parts)


def _has_same_letters(word: str, name: str) -> bool:
    """Whether the two have the same letters in another order, such as `cgf` and `cfg`."""
    return len(word) >= SHORTEST_PART and sorted(word) == sorted(name)
