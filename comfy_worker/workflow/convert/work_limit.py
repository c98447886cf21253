"""Limits the work that one UI-format workflow may cause.

Subgraphs multiply: a file of half a megabyte can expand to gigabytes. Code that walks a file counts
its steps here. It also notices here that a job was cancelled.
"""

from __future__ import annotations

from collections.abc import Callable

from comfy_worker.errors import InvalidWorkflow

__all__ = ["MAX_CHARACTERS", "MAX_STEPS", "WorkLimit"]

# A graph of 5,000 ordinary nodes needs about 150,000 steps.
MAX_STEPS = 500_000
# RunPod takes requests of 20 MB.
MAX_CHARACTERS = 40_000_000
CHECK_EVERY = 2_000


class WorkLimit:
    """Counts the steps and the characters of one conversion.

    Args:
        check: called repeatedly; raises if the job must end.
    """

    def __init__(self, check: Callable[[], None] | None = None) -> None:
        self._check = check or (lambda: None)
        self._steps = 0
        self._characters = 0
        self._next_check = CHECK_EVERY

    def count_steps(self, steps: int = 1) -> None:
        """Count steps of a walk.

        Raises:
            InvalidWorkflow: there are too many.
        """
        self._steps += steps
        if self._steps >= self._next_check:
            self._next_check = self._steps + CHECK_EVERY
            self._check()
        if self._steps > MAX_STEPS:
            raise InvalidWorkflow(
                "workflow becomes too large to convert: its subgraphs, inputs and links take more "
                f"than {MAX_STEPS:,} steps to follow; take subgraphs or links out"
            )

    def count_characters(self, characters: int) -> None:
        """Count characters of the converted graph.

        Raises:
            InvalidWorkflow: there are too many.
        """
        self._characters += characters
        if self._characters > MAX_CHARACTERS:
            raise InvalidWorkflow(
                f"workflow becomes longer than {MAX_CHARACTERS:,} characters once its subgraphs "
                "are unpacked; shorten its texts or take subgraphs out"
            )

    def check(self) -> None:
        """Raise if the job must end."""
        self._check()
