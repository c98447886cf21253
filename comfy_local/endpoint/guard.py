"""Ends the workers of an endpoint that was killed before it could end them itself.

Runs as a program of its own (standard library only): it reads ``+PID`` and ``-PID`` lines, one for each worker
that starts or has ended, from a pipe that only the endpoint holds. When the pipe closes, what is still listed
gets SIGTERM, and after a grace SIGKILL, with everything in its process group. Signals do not end it: it ends with
the pipe, so that one which reaches the endpoint and this program together leaves no worker behind.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress


def end_all(pids: set[int], grace_s: float) -> None:
    """Ends processes that lead their own process group, and their groups with them.

    Args:
        pids: Process ids, each the id of its group too.
        grace_s: Seconds between SIGTERM to the leaders and SIGKILL to the groups.
    """
    alive = {pid for pid in pids if _signal(pid, signal.SIGTERM)}
    deadline_s = time.monotonic() + grace_s
    while alive and time.monotonic() < deadline_s:
        time.sleep(0.1)
        alive = {pid for pid in alive if _signal(pid, 0)}
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Keeps the list until standard input closes, then ends what is on it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    pids: set[int] = set()
    for line in sys.stdin:
        change = pids.add if line.startswith("+") else pids.discard
        change(int(line[1:]))
    end_all(pids, grace_s=float(sys.argv[1]))


if __name__ == "__main__":
    main()
