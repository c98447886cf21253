"""The worker's own nodes, loaded by ComfyUI at boot and never written into its folder.

Its routes answer what ``/object_info`` leaves out: which folders are searched for models, which inputs a class
validates itself, and everything that ComfyUI's own validation finds wrong with a workflow.

It also adds the worker's model folders, lets a prompt turn on previews and name the graph that its client sent,
keeps prompts apart, keeps nodes from reading the files of other jobs, keeps the prompt thread alive and the
cache's keys small, and ends ComfyUI if the prompt thread dies. A change that does not fit a version of ComfyUI is
left out, with a line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import folder_paths
import nodes
from aiohttp import web
from server import PromptServer

from .cache_keys import shorten_cache_keys
from .client_graph import give_clients_graph
from .isolation import keep_prompts_apart
from .output import ComfyWorkerOutput
from .path_guard import guard_paths
from .previews import take_preview_method
from .prompt_thread import end_with_prompt_thread, fail_one_prompt
from .roots import add_model_roots, roots_of_worker
from .validation import validate_workflow, validated_inputs

NODE_CLASS_MAPPINGS = {"ComfyWorkerOutput": ComfyWorkerOutput}


def apply(change: Callable[[], None]) -> None:
    """Change something in ComfyUI; a change that does not fit this version is logged and left out."""
    try:
        change()
    # The nodes and the other changes must load, whatever this one raises.
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {error}"
        logging.warning(
            "comfy_worker_nodes: %s does not fit this ComfyUI: %s", change.__name__, reason
        )


def model_roots() -> None:
    """Add the worker's model folders to those that ComfyUI searches."""
    add_model_roots(roots_of_worker())


CHANGES = (
    model_roots,
    take_preview_method,
    give_clients_graph,
    end_with_prompt_thread,
    keep_prompts_apart,
    guard_paths,
    shorten_cache_keys,
    fail_one_prompt,  # last, so that it catches what the others raise
)
for change in CHANGES:
    apply(change)


@PromptServer.instance.routes.get("/comfy_worker/folders")
async def folders(_request: web.Request) -> web.Response:
    """Answer which folders ComfyUI searches for which kind of model: ``{"loras": ["/...", ...], ...}``."""
    known = folder_paths.folder_names_and_paths.items()
    return web.json_response({name: list(entry[0]) for name, entry in known})


@PromptServer.instance.routes.get("/comfy_worker/validated")
async def validated(_request: web.Request) -> web.Response:
    """Answer the inputs that each class validates itself; classes that validate none are left out."""
    classes = nodes.NODE_CLASS_MAPPINGS.items()
    found = {name: validated_inputs(node_class) for name, node_class in classes}
    return web.json_response({name: inputs for name, inputs in found.items() if inputs})


@PromptServer.instance.routes.post("/comfy_worker/validate")
async def validate(request: web.Request) -> web.Response:
    """Answer everything that ComfyUI finds wrong with a workflow, and what it would drop in silence."""
    return web.json_response(await validate_workflow(await request.json()))
