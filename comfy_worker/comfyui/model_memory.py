"""Decides when ComfyUI must unload models, so that its cache stays within the container's memory.

The cache counts results, not bytes. It would keep the models of one template while another loads
its own, and the kernel would then kill ComfyUI.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

__all__ = ["ModelMemory"]

# How much of the container's memory the files of cached models may fill.
MODELS_SHARE = 0.7
# Below this share of free memory, results that have piled up are dropped.
LOW_SHARE = 0.1
# How much less memory must be free than after the first workflow. A model that is large by itself
# is not unloaded: it would have to be loaded again at once.
GROWTH_SHARE = 0.05


class ModelMemory:
    """Keeps account of the models that one ComfyUI has cached; may be shared by threads.

    Args:
        limit_bytes: how much memory the container may use.
        free_bytes: measures how much of it is free.
    """

    def __init__(self, limit_bytes: float, free_bytes: Callable[[], float]) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._cached: dict[str, int] = {}
        self._free_at_first: float | None = None

    def must_unload(self, files: Mapping[str, int]) -> bool:
        """Count the models of the next workflow as cached.

        Args:
            files: the size of each of its model files, in bytes.

        Returns:
            Whether everything else must be unloaded before it runs.
        """
        with self._lock:
            others = self._cached.keys() - files.keys()
            together = self._cached | dict(files)
            is_too_much = sum(together.values()) > self._limit_bytes * MODELS_SHARE
            unload = (bool(others) and is_too_much) or self._has_piled_up()
            self._cached = dict(files) if unload else together
            if unload:
                self._free_at_first = None
        return unload

    def workflow_ended(self) -> None:
        """Measure the memory that is left after the first workflow since models were unloaded."""
        with self._lock:
            if self._free_at_first is None:
                self._free_at_first = self._free_bytes()

    def _has_piled_up(self) -> bool:
        if self._free_at_first is None:
            return False
        free_bytes = self._free_bytes()
        growth_bytes = self._free_at_first - free_bytes
        is_low = free_bytes < self._limit_bytes * LOW_SHARE
        return is_low and growth_bytes > self._limit_bytes * GROWTH_SHARE
