"""Keeps ComfyUI's prompt thread alive, and ends ComfyUI if the thread dies nevertheless.

An exception that a node raises fails its prompt. An exception that ComfyUI raises between nodes
(for a link to a missing node, or for a chain that is too deep) would end the thread. Here it fails
its prompt too. ``SystemExit`` in a node, like any ``BaseException``, still ends the thread, and
Python does not report ``SystemExit``. Without the thread, ComfyUI would accept prompts and never
run them.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import traceback
from typing import Any

__all__ = ["EXIT_STATUS", "end_with_prompt_thread", "fail_one_prompt"]

EXIT_STATUS = 70  # sysexits.h: an error inside the software


def end_with_prompt_thread() -> None:
    """End ComfyUI, with the traceback, when its prompt thread ends."""
    before = threading.excepthook

    def on_exception(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or "prompt_worker" not in args.thread.name:
            before(args)
            return
        traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
        sys.stderr.flush()
        os._exit(EXIT_STATUS)

    threading.excepthook = on_exception


def fail_one_prompt() -> None:
    """Let an exception of ComfyUI fail the running prompt, and continue with the next prompt."""
    import execution

    run = execution.PromptExecutor.execute

    @functools.wraps(run)
    def execute(executor: Any, prompt: Any, prompt_id: str, *args: Any, **options: Any) -> Any:
        try:
            return run(executor, prompt, prompt_id, *args, **options)
        except Exception as error:  # the thread must survive any exception
            logging.exception("comfy_worker_nodes: the workflow cannot be run")
            executor.success, executor.history_result = False, {"outputs": {}, "meta": {}}
            executor.add_message(
                "execution_error", _message(executor, prompt, prompt_id, error), broadcast=False
            )
            return None

    execution.PromptExecutor.execute = execute


def _message(executor: Any, prompt: Any, prompt_id: str, error: Exception) -> dict[str, Any]:
    """Return the error message, about the last node that began, or else about the first node."""
    node_id = getattr(executor.server, "last_node_id", None)
    if node_id not in prompt:
        node_id = next(iter(prompt), "")
    return {
        "prompt_id": prompt_id,
        "node_id": node_id,
        "node_type": prompt.get(node_id, {}).get("class_type", ""),
        "executed": [],
        "exception_message": str(error),
        "exception_type": type(error).__name__,
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": {},
        "current_outputs": [],
    }
