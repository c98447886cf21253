"""The error of everything that makes a machine ready."""

from __future__ import annotations


class SetupError(Exception):
    """A failure told in one line: what is wrong and what to do."""
