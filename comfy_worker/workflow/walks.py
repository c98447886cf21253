"""Walks along links and computes values node by node, without recursion and with early ends.

Large workflows have thousands of nodes in a row, so Python's recursion would end too early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["Check", "Fold", "never_ends", "walk"]

S = TypeVar("S", bound=Hashable)
V = TypeVar("V")

Check = Callable[[], None]
"""Raises an error if the job must end: it was cancelled, or its time is over."""

STEPS_PER_CHECK = 256


def never_ends() -> None:
    """Never raise: the check for work that nobody ends early."""


def walk(
    starts: Iterable[S],
    following: Callable[[S], Iterable[S]],
    check: Check = never_ends,
    seen: set[S] | None = None,
) -> Iterator[S]:
    """Yield every state that the starts lead to, each once.

    Finishes one start before the next; yields a start first and then the nearest states.

    Args:
        starts: the states to begin with.
        following: returns the states that one state leads to.
        check: called repeatedly; it may raise an error to end a long walk.
        seen: the states that earlier walks have visited. They are skipped; new ones are added.
    """
    seen = set() if seen is None else seen
    queue: deque[S] = deque()
    for start in starts:
        if start not in seen:
            seen.add(start)
            queue.append(start)
        while queue:
            if len(seen) % STEPS_PER_CHECK == 0:
                check()
            state = queue.popleft()
            yield state
            for other in following(state):
                if other not in seen:
                    seen.add(other)
                    queue.append(other)


class Fold(Generic[S, V]):
    """Computes a value for a state from the values of the states above it, each once.

    Walks from every node of a workflow would together take the square of its size. With cached
    values, the time of all of them together is linear.

    Args:
        above: returns the states that a state depends on. A circle is cut where it closes.
        combine: makes the value of a state from the values of the states above it, in their order.
        check: called repeatedly; it may raise an error to end long work.
    """

    def __init__(
        self,
        above: Callable[[S], Iterable[S]],
        combine: Callable[[S, list[V]], V],
        check: Check = never_ends,
    ) -> None:
        self._above = above
        self._combine = combine
        self._check = check
        self._values: dict[S, V] = {}
        self._steps = 0

    def __call__(self, start: S) -> V:
        """Return the value of a state."""
        values = self._values
        if start in values:
            return values[start]
        # Mostly, what is above a start is known already.
        self._count_step()
        above = tuple(self._above(start))
        if all(other in values for other in above):
            values[start] = self._combine(start, [values[other] for other in above])
            return values[start]
        opened = {start: above}
        stack = [start, *(other for other in reversed(above) if other not in values)]
        while stack:
            state = stack[-1]
            if state in values:
                stack.pop()
                continue
            if state in opened:
                above = opened[state]
            else:
                self._count_step()
                above = opened[state] = tuple(self._above(state))
                unknown = [other for other in above if other not in values and other not in opened]
                if unknown:
                    unknown.reverse()
                    stack += unknown
                    continue
            stack.pop()
            values_above = [values[other] for other in above if other in values]
            values[state] = self._combine(state, values_above)
        return values[start]

    def _count_step(self) -> None:
        if self._steps % STEPS_PER_CHECK == 0:
            self._check()
        self._steps += 1
