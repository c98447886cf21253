"""Shows the user the steps of a command: progress, durations and messages.

On a terminal a step is one line that is drawn again and again. In a log or a pipe it is a few plain
lines.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from comfy_common.text import duration

BAR_WIDTH = 24
PLAIN_EVERY_S = 10.0
DRAW_EVERY_S = 0.1


@dataclass
class Step:
    """A part of a command that takes a while.

    Args:
        title: such as "Installing the packages".
        stream: where the step is shown.
    """

    title: str
    stream: TextIO
    started: float = field(default_factory=time.monotonic)
    fraction: float | None = None
    note: str = ""
    shown_at: float = 0.0
    shown: str = ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started

    def progress(self, note: str, fraction: float | None = None) -> None:
        """Show the progress of the step.

        Args:
            note: such as "12 of 34 files"; may be empty.
            fraction: 0..1 for a bar, None for no bar.
        """
        self.note, self.fraction = note, fraction
        self.tick()

    def say(self, line: str) -> None:
        """Write one line above the step.

        Args:
            line: without its newline.
        """
        clear = "\r\x1b[K" if self.stream.isatty() else ""
        self.stream.write(f"{clear}{line}\n")
        self.stream.flush()
        if clear:
            self.shown_at = 0.0  # the step's own line was cleared

    def tick(self) -> None:
        """Show the step again if it is time. Call this often while waiting."""
        now = time.monotonic()
        if self.stream.isatty():
            if now - self.shown_at >= DRAW_EVERY_S:
                self.shown_at = now
                # A line that wraps could not be drawn over.
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(f"\r\x1b[K{self._line()[:width]}")
                self.stream.flush()
        elif now - max(self.shown_at, self.started) >= PLAIN_EVERY_S and self.note != self.shown:
            self.shown_at, self.shown = now, self.note
            self.stream.write(f"  {self.note} ({duration(self.elapsed_s)})\n")
            self.stream.flush()

    def _line(self) -> str:
        parts = [self.title, f"({duration(self.elapsed_s)})"]
        if self.fraction is not None:
            done = round(BAR_WIDTH * min(max(self.fraction, 0.0), 1.0))
            parts.append(f"[{'#' * done}{'.' * (BAR_WIDTH - done)}]")
        if self.note:
            parts.append(self.note)
        return " ".join(parts)


@dataclass
class Console:
    """Shows the messages and steps of a command.

    Args:
        stream: standard error for messages and steps, standard output for results.
    """

    stream: TextIO

    def say(self, line: str) -> None:
        """Write one line, and flush it: the reader may wait for this line alone.

        Args:
            line: without its newline.
        """
        self.stream.write(f"{line}\n")
        self.stream.flush()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step: its title at the start, its duration at the end.

        Args:
            title: such as "Installing the packages".

        Yields:
            The step, which takes reports of progress.
        """
        step = Step(title, self.stream)
        terminal = self.stream.isatty()
        if not terminal:
            self.say(title)
        step.tick()
        try:
            yield step
        except BaseException:
            if terminal:
                self.stream.write("\n")
            raise
        took = duration(step.elapsed_s)
        self.say(f"\r\x1b[K{title}: done in {took}" if terminal else f"  done in {took}")
