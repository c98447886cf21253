"""The base class of the errors that the command line shows to the user."""

from __future__ import annotations


class SetupError(Exception):
    """A failure with a message of one line: what is wrong and what to do."""
