"""Lets saving nodes write the client's own graph into their files.

ComfyUI hands a node the queued graph, as ``PROMPT``. That graph has a class of ours where pictures are saved, and
the names of the job's folders.
"""

from __future__ import annotations

from typing import Any

from .prompts import extra_data_of_running_prompt

__all__ = ["give_clients_graph"]


def give_clients_graph() -> None:
    """Give nodes the graph that the worker sent beside the prompt, if it sent one."""
    from comfy_execution.graph import DynamicPrompt

    queued = DynamicPrompt.get_original_prompt

    def get_original_prompt(self: Any) -> Any:
        return extra_data_of_running_prompt("comfy_worker_graph") or queued(self)

    DynamicPrompt.get_original_prompt = get_original_prompt
