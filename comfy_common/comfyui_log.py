"""Reads the lines of ComfyUI's log, whichever version wrote them."""

from __future__ import annotations

import re

__all__ = ["plain_line"]

# Versions from 0.33 on write "[INFO]" with colours in front of a line, terminal or not.
ANSI_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LEVEL_TAG = re.compile(r"^\[(DEBUG|DETAIL|INFO|WARNING|ERROR|CRITICAL)\] ")


def plain_line(line: str) -> str:
    """Remove colours and the tag of the log level, so that one pattern fits all versions."""
    return LEVEL_TAG.sub("", ANSI_CODES.sub("", line))
