"""Sets of numbered nodes as bits of an integer: large graphs have many sets that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["BitsByKey", "bit_numbers", "union"]


def union(bit_sets: Iterable[int]) -> int:
    """Return the bits that are set in any of the sets."""
    bits = 0
    for other in bit_sets:
        bits |= other
    return bits


def bit_numbers(bits: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


class BitsByKey:
    """Joins the bits of several keys; can leave out any single key."""

    def __init__(self, bits: Mapping[str, int]) -> None:
        self._bits = bits
        self._once = self._twice = 0
        for own in bits.values():
            self._twice |= self._once & own
            self._once |= own

    def without(self, key: str) -> int:
        """Return the bits that any key but this one has."""
        only_here = self._bits.get(key, 0) & ~self._twice
        return self._once & ~only_here
