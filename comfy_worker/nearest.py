"""Which known names a mistyped name may mean: every "did you mean" of the worker is decided here.

A hint that is not near misleads more than none, so there is one cut-off for all of them. The cost is bounded,
because a client may send long words, and a machine may hold thousands of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice

__all__ = ["MAX_HINTS", "did_you_mean", "nearest"]

LIKENESS = 0.7
"""Names are near from this share of common letters on, as `difflib` counts it: `id` and `width` have 0.57."""
MAX_HINTS = 20
"""How many findings of one error get a hint; more than that nobody reads."""
LONGEST_WORD = 64
MAX_NAMES = 5_000
MAX_COMPARED = 100
SHORTEST_PART = 3
SHORTEST_BEGINNING = 4


def nearest(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names that are near a word, best first, without regard to case.

    Near is a name with nearly the same letters, one that begins with the word, and one that has all parts of the
    word (`seed` and `noise_seed`) or the other way round.

    Args:
        word: as a client wrote it; of a long one the beginning counts.
        names: the known names; the first 5,000 count.
        count: at most so many are returned.
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
    """The end of an error's sentence: the names that are near a word, else what is said where none is.

    Args:
        word: as a client wrote it.
        names: the known names.
        otherwise: what to say where no name is near.
        count: at most so many names.
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
    """Whether all parts of one of the two are parts of the other."""
    parts, others = _parts(word), _parts(name)
    return bool(parts and others) and (parts <= others or others <= parts)


def _has_same_letters(word: str, name: str) -> bool:
    """Whether one is the other with letters that changed places, as `cgf` and `cfg`."""
    return len(word) >= SHORTEST_PART and sorted(word) == sorted(name)
