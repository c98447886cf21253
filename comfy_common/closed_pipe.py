"""Ends a command quietly when the reader of its output has ended, as in `... | head -1`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

__all__ = ["CLOSED_PIPE", "quiet_on_closed_pipe"]

# The exit code that a shell reports for a program that SIGPIPE has ended.
CLOSED_PIPE = 141


def quiet_on_closed_pipe(command: Callable[[], int]) -> int:
    """Run a command.

    Args:
        command: returns its exit code, or raises SystemExit.

    Returns:
        The command's exit code, or 141 if standard output or standard error has lost its reader.
    """
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not closed:
            raise  # some other pipe broke
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in closed:
            os.dup2(nowhere, stream.fileno())  # Python flushes both once more at its end
        os.close(nowhere)
        return CLOSED_PIPE


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return False  # a test has replaced the stream, and there is no file behind it
    return any(event & (select.POLLERR | select.POLLHUP) for _number, event in poll.poll(0))
