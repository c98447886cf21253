"""The exit codes of all commands; docs/commands.md lists them."""

from __future__ import annotations

OK = 0
# A job failed, a file has a problem, or something is missing.
FAILED = 1
# The arguments are wrong.
USAGE = 2
# The endpoint could not be reached, or refused the request.
UNREACHABLE = 3
# The job was cancelled, or its time was over.
CANCELLED = 4
INTERRUPTED = 130
