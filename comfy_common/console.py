"""Shows the user the steps of a command: progress, durations, messages and tables.

On a terminal a step is one line that is drawn again and again, and rich draws bars and tables once
it is installed. In a log or a pipe there are a few plain lines. rich heeds `NO_COLOR`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from comfy_common.text import duration

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

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
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(f"\r\x1b[K{self._line(width)}")
                self.stream.flush()
        elif now - max(self.shown_at, self.started) >= PLAIN_EVERY_S and self.note != self.shown:
            self.shown_at, self.shown = now, self.note
            self.stream.write(f"  {self.note} ({duration(self.elapsed_s)})\n")
            self.stream.flush()

    def _line(self, width: int) -> str:
        """The step in one line. A line that wraps could not be drawn over."""
        title = f"{self.title} ({duration(self.elapsed_s)})"[:width]
        if self.fraction is None or len(title) + BAR_WIDTH + 2 > width:
            return f"{title} {self.note}"[:width].rstrip()
        fraction = min(max(self.fraction, 0.0), 1.0)
        room = width - len(title) - BAR_WIDTH - 2
        return f"{title} {_bar(self.stream, fraction)} {self.note[:room]}".rstrip()


def _bar(stream: TextIO, fraction: float) -> str:
    """A bar that is `BAR_WIDTH` wide on the screen."""
    rich = _rich_on(stream)
    if rich is None:
        done = round(BAR_WIDTH * fraction)
        return f"{'#' * done}{'.' * (BAR_WIDTH - done)}"
    from rich.progress_bar import ProgressBar

    with rich.capture() as captured:
        rich.print(ProgressBar(total=1.0, completed=fraction, width=BAR_WIDTH), end="")
    return str(captured.get())


def _rich_on(stream: TextIO) -> RichConsole | None:
    """Return rich's view of a terminal; None in a pipe, or before rich is installed."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console as TerminalConsole
    except ImportError:
        return None
    return TerminalConsole(file=stream, highlight=False, markup=False, emoji=False)


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

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table. In a pipe: plain columns, without a header if there are two columns.

        Args:
            header: the names of the columns.
            rows: texts, which may have several lines.
        """
        rich = _rich_on(self.stream)
        if rich is None:
            plain = [*rows] if len(header) == 2 else [header, *rows]
            for line in _plain_columns(plain):
                self.say(line)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="", pad_edge=False, padding=(0, 2, 0, 0))
        for number, name in enumerate(header):
            table.add_column(name, overflow="fold", no_wrap=number == 0)
        for row in rows:
            table.add_row(*[Text(cell) for cell in row])
        rich.print(table)

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


def _plain_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align columns with spaces. All columns but the last have one line."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    for row in rows:
        first, *more = row[-1].split("\n")
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, first]).rstrip()
        for line in more:
            yield "  ".join([*[" " * width for width in widths], line]).rstrip()
