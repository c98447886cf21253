"""Previews for the prompts that ask for them, and no cost for the others.

Later versions of ComfyUI take ``extra_data.preview_method`` with a prompt; this teaches it to those that do not.
"""

from __future__ import annotations

from typing import Any

import latent_preview
from comfy.cli_args import LatentPreviewMethod, args
from server import PromptServer

__all__ = ["take_preview_method"]


def _is_asked() -> bool:
    """Whether the prompt that runs now asks for previews; the queue runs one at a time."""
    running = PromptServer.instance.prompt_queue.currently_running.values()
    return any(extra_data.get("preview_method") == "auto" for _number, _id, _prompt, extra_data, *_ in running)


def take_preview_method() -> None:
    """Ask the prompt before ComfyUI chooses its previewer; does nothing where ComfyUI does so itself."""
    if hasattr(latent_preview, "set_preview_method"):
        return
    by_arguments = latent_preview.get_previewer

    def get_previewer(device: Any, latent_format: Any) -> Any:
        at_start = args.preview_method
        if at_start == LatentPreviewMethod.NoPreviews and _is_asked():
            args.preview_method = LatentPreviewMethod.Auto
        try:
            return by_arguments(device, latent_format)
        finally:
            args.preview_method = at_start

    latent_preview.get_previewer = get_previewer
