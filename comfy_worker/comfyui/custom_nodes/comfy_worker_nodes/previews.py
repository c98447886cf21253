"""Makes previews for the prompts that ask for them, at no cost for the others.

Later versions of ComfyUI accept ``extra_data.preview_method`` with a prompt. This module adds it to
earlier versions.
"""

from __future__ import annotations

from typing import Any

from .prompts import extra_data_of_running_prompt

__all__ = ["take_preview_method"]


def take_preview_method() -> None:
    """Read the prompt's choice before ComfyUI chooses its previewer, unless ComfyUI does so."""
    import latent_preview

    if hasattr(latent_preview, "set_preview_method"):
        return
    from comfy.cli_args import LatentPreviewMethod, args

    by_arguments = latent_preview.get_previewer

    def get_previewer(device: Any, latent_format: Any) -> Any:
        at_start = args.preview_method
        is_off = at_start == LatentPreviewMethod.NoPreviews
        if is_off and extra_data_of_running_prompt("preview_method") == "auto":
            args.preview_method = LatentPreviewMethod.Auto
        try:
            return by_arguments(device, latent_format)
        finally:
            args.preview_method = at_start

    latent_preview.get_previewer = get_previewer
