"""Makes the SDK's heartbeat end with the worker.

The SDK pings RunPod from a separate process. After ``kill -9`` of the worker it would run for ever:
RunPod would believe that the worker lives, and the locks and files that the process inherited would
stay.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from runpod.serverless.modules import rp_ping

from comfy_common import parent_death

__all__ = ["end_with_parent"]

LOOK_S = 1.0

# Kept at import: a process that is not forked imports this module and needs the SDK's original.
_sdk_loop = rp_ping.Heartbeat.process_loop


def end_with_parent() -> None:
    """Make every heartbeat that starts after this call end with this process."""
    rp_ping.Heartbeat.process_loop = staticmethod(_loop)


def _loop(*arguments: Any, **options: Any) -> None:
    """Run the SDK's loop in the heartbeat's process, until the parent ends."""
    # Ctrl-C reaches all processes. It is meant for the worker, which finishes its jobs and then
    # ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    parent_death.end_with_parent()
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()
    _sdk_loop(*arguments, **options)


def _watch(parent: int) -> None:
    """End this process once it has another parent.

    For systems other than Linux, and for a parent that ended before the kernel watched it.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)
