"""Keeps prompts apart, although ComfyUI is made for one user.

ComfyUI reuses the node objects of an earlier prompt, with everything that they remember. Here a
node of a custom pack is a new object for each prompt. A line in the log marks where the output of a
prompt begins and ends, so the worker knows which lines belong to which prompt. ComfyUI's validation
errors are also in its response. They are kept out of the log, since another prompt may be running.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

import execution

__all__ = ["keep_prompts_apart"]

# The worker chooses a new mark for each ComfyUI process, so no client can write it.
MARK = os.environ.get("COMFY_WORKER_LOG_MARK", "comfy_worker: prompt")
OF_VALIDATION = {"validate_prompt", "post_prompt"}


def keep_prompts_apart() -> None:
    """Change ComfyUI, for every prompt from now on."""
    run = execution.PromptExecutor.execute_async

    @functools.wraps(run)
    async def execute_async(
        executor: Any, prompt: Any, prompt_id: str, *args: Any, **options: Any
    ) -> Any:
        try:
            forget_instances(executor.caches.objects)
        except AttributeError as error:
            logging.warning("comfy_worker_nodes: cannot find ComfyUI's node objects: %s", error)
        _mark(prompt_id)
        try:
            return await run(executor, prompt, prompt_id, *args, **options)
        finally:
            _mark()

    execution.PromptExecutor.execute_async = execute_async
    logging.getLogger().addFilter(lambda record: record.funcName not in OF_VALIDATION)


def _mark(prompt_id: str = "") -> None:
    # It starts a new line, even after an unfinished progress bar. One write keeps it in one piece.
    print(f"\n{MARK} {prompt_id}\n", end="", flush=True)


def forget_instances(cache: Any) -> None:
    """Drop the objects of custom nodes. ComfyUI's own nodes remember only a loaded LoRA."""
    objects = getattr(cache, "cache", {})  # ComfyUI's null cache has none
    for key in [key for key, node in objects.items() if _is_custom(type(node))]:
        del objects[key]
    getattr(cache, "subcaches", {}).clear()


def _is_custom(node_class: type) -> bool:
    return str(getattr(node_class, "RELATIVE_PYTHON_MODULE", "")).startswith("custom_nodes.")
