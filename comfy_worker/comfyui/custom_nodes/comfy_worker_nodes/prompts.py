"""What the worker tells ComfyUI of the prompt that runs, beside its graph: ``extra_data`` with words of ours."""

from __future__ import annotations

import logging
from typing import Any

from server import PromptServer

__all__ = ["told"]


def told(word: str) -> Any:
    """What stands under a word in the extra data of the prompt that runs; the queue runs one at a time."""
    try:
        running = PromptServer.instance.prompt_queue.currently_running.values()
        return next((extra_data.get(word) for _number, _id, _prompt, extra_data, *_ in running), None)
    except (AttributeError, TypeError, ValueError) as error:
        logging.warning("comfy_worker_nodes: this ComfyUI does not tell which prompt runs: %s", error)
        return None
