"""Ends the workers of an endpoint that was killed before it could end them itself.

Runs as a separate program and uses only the standard library. It reads ``+PID`` and ``-PID`` lines
from a pipe that only the endpoint holds: one for each worker that starts or has ended. When the
pipe closes, the listed workers get SIGTERM, and later their process groups get SIGKILL. Signals do
not end this program, so that a signal to it and the endpoint together leaves no worker running.
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
    """Keeps the list of workers until standard input closes, then ends them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    pids: set[int] = set()
    for line in sys.stdin:
        change = pids.add if line.startswith("+") else pids.discard
        change(int(line[1:]))
    end_all(pids, grace_s=float(sys.argv[1]))


if __name__ == "__main__":
    main()
