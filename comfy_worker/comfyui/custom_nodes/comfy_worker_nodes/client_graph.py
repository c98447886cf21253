"""The graph that saving nodes write into their files: the client's own, not the one that was queued for it.

ComfyUI hands a node the queued graph, as ``PROMPT``. That one has a class of ours where pictures are saved, and
the names of the job's folders.
"""

from __future__ import annotations

from typing import Any

from .prompts import extra_data_of_running_prompt

__all__ = ["give_clients_graph"]


def give_clients_graph() -> None:
    """Give nodes that ask for the prompt the graph that the worker sent beside it, where it did."""
    from comfy_execution.graph import DynamicPrompt

    queued = DynamicPrompt.get_original_prompt

    def get_original_prompt(self: Any) -> Any:
        return extra_data_of_running_prompt("comfy_worker_graph") or queued(self)

    DynamicPrompt.get_original_prompt = get_original_prompt
