"""Makes a process end when its parent ends."""

from __future__ import annotations

import ctypes
import signal
import sys

__all__ = ["end_with_parent"]

PR_SET_PDEATHSIG = 1

# Loaded here, before any fork: a forked child must not wait for the dynamic loader's lock.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; does nothing on other systems.

    A parent that ended before this call is not noticed: compare ``os.getppid()`` afterwards.
    """
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
