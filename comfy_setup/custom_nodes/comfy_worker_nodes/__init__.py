"""The worker's own nodes, loaded by ComfyUI at boot and never written into its folder.

Makes the worker's model roots known: every folder that this ComfyUI keeps under its own ``models`` (``loras``,
``unet`` and ``diffusion_models`` ...) is looked for under each root of ``COMFY_WORKER_MODEL_ROOTS`` too, in order.
Which folders there are is asked of ComfyUI, not listed here. Lets a prompt ask for previews.
"""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from .previews import take_preview_method

NODE_CLASS_MAPPINGS: dict[str, type] = {}


def add_model_roots(roots: list[str]) -> None:
    """Add each root's folders to those that ComfyUI searches."""
    own = Path(folder_paths.models_dir)
    for name, (folders, _extensions) in list(folder_paths.folder_names_and_paths.items()):
        kept_in_models = [Path(folder).name for folder in folders if Path(folder).parent == own]
        for root in roots:
            for folder in kept_in_models:
                folder_paths.add_model_folder_path(name, str(Path(root) / folder))


add_model_roots([root for root in os.environ.get("COMFY_WORKER_MODEL_ROOTS", "").split(os.pathsep) if root])
take_preview_method()


@PromptServer.instance.routes.get("/comfy_worker/folders")
async def folders(_request: web.Request) -> web.Response:
    """Answer which folders ComfyUI searches for which kind of model: ``{"loras": ["/...", ...], ...}``."""
    return web.json_response({name: list(found[0]) for name, found in folder_paths.folder_names_and_paths.items()})
