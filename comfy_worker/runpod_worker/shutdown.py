"""Ends the worker: after the jobs that run on the first signal, at once on the second."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["GracefulShutdown", "exit_now"]

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class GracefulShutdown:
    """Passes SIGTERM and SIGINT to the event loop.

    asyncio's own handler only writes a byte into a pipe, so no lock is taken where a signal
    interrupts.

    Args:
        stop: called in the event loop at the first signal.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._is_stopping = False

    def install(self) -> None:
        """Take over the signals; must be called in the running event loop."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._is_stopping:
            exit_now(128 + number)
        self._is_stopping = True
        log.info("finishing the jobs that run", extra={"action": "worker.leaving"})
        self._stop()


def exit_now(status: int) -> NoReturn:
    """End this process without waiting for threads: an abandoned upload may wait a minute."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(status)
