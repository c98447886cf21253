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
    """Has the event loop hear of SIGTERM and SIGINT.

    asyncio's own handler only writes a byte into a pipe, so no lock is taken where a signal interrupts.

    Args:
        stop: called in the event loop at the first signal.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._is_asked = False

    def install(self) -> None:
        """Take the signals over from whoever had them; belongs into the running event loop."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._is_asked:
            exit_now(128 + number)
        self._is_asked = True
        log.info("finishing the jobs that run", extra={"action": "worker.leaving"})
        self._stop()


def exit_now(status: int) -> NoReturn:
    """End this process and wait for no thread: an upload that was given up may wait a minute for its storage."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(status)
