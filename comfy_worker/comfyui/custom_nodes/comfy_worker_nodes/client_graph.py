"""Lets saving nodes write the client's own graph into their files.

ComfyUI passes the queued graph to a node, as ``PROMPT``. That graph contains the worker's own
output nodes and the names of the job's folders, so it is not what the client sent.
"""

from __future__ import annotations

from typing import Any

from .prompts import extra_data_of_running_prompt

__all__ = ["give_clients_graph"]


def give_clients_graph() -> None:
    """Pass the graph that the worker sent with the prompt to nodes, if it sent one."""
    from comfy_execution.graph import DynamicPrompt

    queued = DynamicPrompt.get_original_prompt

    def get_original_prompt(self: Any) -> Any:
        return extra_data_of_running_prompt("comfy_worker_graph") or queued(self)

    DynamicPrompt.get_original_prompt = get_original_prompt
