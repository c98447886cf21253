"""Reads what the worker sends with a prompt beside its graph: keys of its own in ``extra_data``."""

from __future__ import annotations

import logging
from typing import Any

from server import PromptServer

__all__ = ["extra_data_of_running_prompt"]


def extra_data_of_running_prompt(key: str) -> Any:
    """The value of a key in the extra data of the prompt that runs; the queue runs one prompt at a time."""
    try:
        running = PromptServer.instance.prompt_queue.currently_running.values()
        return next(
            (extra_data.get(key) for _number, _id, _prompt, extra_data, *_ in running), None
        )
    except (AttributeError, TypeError, ValueError) as error:
        logging.warning(
            "comfy_worker_nodes: this ComfyUI does not tell which prompt runs: %s", error
        )
        return None
