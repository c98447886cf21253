"""Reads the worker's own keys in the ``extra_data`` of a prompt."""

from __future__ import annotations

import logging
from typing import Any

from server import PromptServer

__all__ = ["extra_data_of_running_prompt"]


def extra_data_of_running_prompt(key: str) -> Any:
    """Return the value of a key in the extra data of the running prompt; None if it has none."""
    try:
        # ComfyUI runs one prompt at a time.
        for _number, _id, _prompt, extra_data, *_ in _running_prompts():
            return extra_data.get(key)
    except (AttributeError, TypeError, ValueError) as error:
        logging.warning(
            "comfy_worker_nodes: this ComfyUI does not tell which prompt runs: %s", error
        )
    return None


def _running_prompts() -> Any:
    return PromptServer.instance.prompt_queue.currently_running.values()
