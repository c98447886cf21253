"""What the user sees while a machine is made ready: steps, progress, durations, and the one line of a failure.

On a terminal a step is one line that is drawn again; elsewhere (a log, a pipe) it is a few plain lines.  It knows
nothing of what the steps do.
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
    """One thing that takes its time.

    Args:
        title: what is being done, as "Installing the packages".
        stream: where it is shown.
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
        """Say how far the step is.

        Args:
            note: what is counted, as "12 of 34 files"; empty for nothing.
            fraction: 0..1 for a bar, None where nothing can be counted.
        """
        self.note, self.fraction = note, fraction
        self.tick()

    def tick(self) -> None:
        """Show the step again if it is time; call it now and then while waiting."""
        now = time.monotonic()
        if self.stream.isatty():
            if now - self.shown_at >= DRAW_EVERY_S:
                self.shown_at = now
                width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be drawn over
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
    """Where the story of a command is told.

    Args:
        stream: standard error, as results alone go to standard output.
    """

    stream: TextIO

    def say(self, line: str) -> None:
        """Write one line.

        Args:
            line: without its newline.
        """
        self.stream.write(f"{line}\n")
        self.stream.flush()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Tell of one step: its title at once, how long it took when it has ended.

        Args:
            title: what is being done, as "Installing the packages".

        Yields:
            The step, to report progress to.
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
