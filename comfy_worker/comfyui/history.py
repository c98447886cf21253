"""Deletes prompts that ended from ComfyUI's history, beside the answers to their clients."""

from __future__ import annotations

import logging
import threading
import time

from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.deadline import TICK_S, Deadline
from comfy_worker.errors import ComfyUIUnavailable

__all__ = ["HistoryCleaner"]

log = logging.getLogger(__name__)

TRIES = 5


class HistoryCleaner:
    """Deletes prompts in a thread of its own; those that end meanwhile share the next request.

    Args:
        client: the routes of the ComfyUI that ran the prompts.
        process: that ComfyUI itself. Once it has ended there is nothing to delete.
    """

    def __init__(self, client: ComfyUIClient, process: ComfyUIProcess) -> None:
        self._client = client
        self._process = process
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._is_deleting = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def delete(self, prompt_id: str) -> None:
        """Delete a prompt soon."""
        with self._changed:
            self._waiting.append(prompt_id)
            self._changed.notify_all()

    def settle(self, deadline: Deadline) -> None:
        """Wait until what was to be deleted is gone, or could not be deleted.

        Raises:
            JobCancelled: the waiting job was cancelled.
            JobTimedOut: its deadline was reached.
        """
        with self._changed:
            while (self._waiting or self._is_deleting) and not self._is_closed:
                deadline.check()
                self._changed.wait(TICK_S)

    def close(self) -> None:
        """End the thread; what is still to be deleted ends with ComfyUI."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while prompt_ids := self._next():
            self._delete(prompt_ids)
            with self._changed:
                self._is_deleting = False
                self._changed.notify_all()

    def _next(self) -> list[str]:
        """Wait for prompts that have ended; none after the end."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            prompt_ids, self._waiting = self._waiting, []
            self._is_deleting = bool(prompt_ids) and not self._is_closed
            return prompt_ids if self._is_deleting else []

    def _delete(self, prompt_ids: list[str]) -> None:
        for _ in range(TRIES):
            if self._is_closed or self._process.failure() is not None:
                return
            try:
                self._client.delete_history(prompt_ids)
                return
            except ComfyUIUnavailable as error:
                log.warning(
                    "could not delete the history: %s",
                    error,
                    extra={"action": "prompt.forget_failed"},
                )
            time.sleep(TICK_S)
