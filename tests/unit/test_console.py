"""What the user sees: steps, progress and durations, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from comfy_common.console import Console
from comfy_common.text import duration, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.4, "59 s"), (185, "3 min 05 s")],
)
def test_a_duration_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 kB"), (8_600, "9 kB"), (12_400_000, "12 MB"), (7_400_000_000, "7.4 GB")],
)
def test_a_size_reads_as_people_say_it(count: int, text: str) -> None:
    assert size(count) == text


def test_a_quick_step_logs_two_lines() -> None:
    stream = io.StringIO()
    with Console(stream).step("Counting") as step:
        for number in range(100):
            step.progress(f"{number} of 100", number / 100)
    assert stream.getvalue() == "Counting\n  done in 0.0 s\n"


def test_a_long_step_logs_changes_now_and_then() -> None:
    stream = io.StringIO()
    with Console(stream).step("Counting") as step:
        step.started -= 11
        step.progress("1 of 3", 1 / 3)
        step.progress("2 of 3", 2 / 3)  # too soon
        step.shown_at -= 11
        step.progress("1 of 3", 1 / 3)  # nothing new
        step.progress("3 of 3", 1.0)
    assert stream.getvalue() == "Counting\n  1 of 3 (11 s)\n  3 of 3 (11 s)\n  done in 11 s\n"


def test_a_terminal_shows_one_line_with_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)  # as before the installation
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with Console(stream).step("Counting") as step:
        step.shown_at = 0
        step.progress("1 of 2", 0.5)
    shown = stream.getvalue().split("\r\x1b[K")
    assert "Counting (0.0 s) ############............ 1 of 2" in shown
    assert shown[-1] == "Counting: done in 0.0 s\n"


def test_rich_draws_the_bar_and_heeds_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for colored in (True, False):
        stream = Terminal()
        with Console(stream).step("Counting") as step:
            step.shown_at = 0
            step.progress("1 of 2", 0.5)
        shown = stream.getvalue().replace("\r\x1b[K", "\n")
        assert "━━━━━━━━━━━━" in shown
        assert ("\x1b[" in shown) == colored
        monkeypatch.setenv("NO_COLOR", "1")


def test_a_table_is_plain_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["a", "first\n- more"], ["bcd", "second"]]
    stream = io.StringIO()
    Console(stream).table(["name", "meaning"], rows)
    assert stream.getvalue() == "a    first\n     - more\nbcd  second\n"
    stream = io.StringIO()
    Console(stream).table(["x", "yy", "z"], [["1", "2", "3"]])
    assert stream.getvalue() == "x  yy  z\n1  2   3\n"
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    Console(terminal).table(["name", "meaning"], rows)
    lines = [line.rstrip() for line in terminal.getvalue().splitlines()]
    assert [line for line in lines if line] == [
        "name  meaning",
        "a     first",
        "      - more",
        "bcd   second",
    ]


def test_a_failed_step_does_not_report_done() -> None:
    for stream in (io.StringIO(), Terminal()):
        with pytest.raises(KeyError), Console(stream).step("Counting"):
            raise KeyError
        assert "done" not in stream.getvalue()
        assert stream.getvalue().endswith("\n")


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    with Console(stream).step("Counting") as step:
        step.shown_at = 0
        step.progress("a note that is too long for such a line", 0.5)
    assert max(len(line) for line in stream.getvalue().split("\r\x1b[K")) <= 29
