"""The worker's own nodes, which ComfyUI loads at boot from outside of its folder.

The routes return what ``/object_info`` leaves out: the folders that are searched for models, the
inputs that a class validates itself, all errors that ComfyUI's validation finds in a workflow, and
the files of ComfyUI's other clients.

The other modules change ComfyUI:

- add the worker's model folders;
- let a prompt turn on previews, and store its client's graph in the files that it saves;
- keep prompts apart, and keep nodes from reading the files of other jobs;
- keep the prompt thread alive, or end ComfyUI if the thread dies;
- keep the keys of the cache small;
- add the route that cancels one prompt, if it is missing.

A change that does not fit a version of ComfyUI is skipped with a line in the log.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable

import folder_paths
import nodes
from aiohttp import web
from server import PromptServer

from .cache_keys import shorten_cache_keys
from .cancel_route import add_cancel_route
from .client_graph import give_clients_graph
from .isolation import keep_prompts_apart
from .output import ComfyWorkerOutput
from .path_guard import guard_paths, other_clients
from .previews import take_preview_method
from .prompt_thread import end_with_prompt_thread, fail_one_prompt
from .roots import add_model_roots, roots_of_worker
from .validation import validate_workflow, validated_inputs

# What was imported so far stays. ComfyUI's own searches for garbage, between prompts, are faster if
# they leave it out.
gc.freeze()
gc.enable()

NODE_CLASS_MAPPINGS = {"ComfyWorkerOutput": ComfyWorkerOutput}


def apply(change: Callable[[], None]) -> None:
    """Change ComfyUI. A change that does not fit this version is logged and skipped."""
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


CHANGES: tuple[Callable[[], None], ...] = (
    model_roots,
    take_preview_method,
    give_clients_graph,
    end_with_prompt_thread,
    keep_prompts_apart,
    guard_paths,
    shorten_cache_keys,
    add_cancel_route,
    fail_one_prompt,  # last, so that it catches what the others raise
)
if os.environ.get("COMFY_WORKER_EDITOR"):
    # One person edits here, with files and prompts of their own.
    CHANGES = (model_roots,)
for change in CHANGES:
    apply(change)


@PromptServer.instance.routes.get("/comfy_worker/folders")
async def folders(_request: web.Request) -> web.Response:
    """Return the folders that ComfyUI searches: ``{"loras": ["/...", ...], ...}``."""
    known = folder_paths.folder_names_and_paths.items()
    return web.json_response({name: list(entry[0]) for name, entry in known})


@PromptServer.instance.routes.get("/comfy_worker/other_clients")
async def files_of_other_clients(_request: web.Request) -> web.Response:
    """Return the files that other clients have in ComfyUI's folders: ``{"paths": [...]}``."""
    return web.json_response({"paths": other_clients.paths()})


@PromptServer.instance.routes.get("/comfy_worker/validated")
async def validated(_request: web.Request) -> web.Response:
    """Return, by class, the inputs that it validates itself. Other classes are left out."""
    found = {}
    for name, node_class in nodes.NODE_CLASS_MAPPINGS.items():
        inputs = validated_inputs(node_class)
        if inputs:
            found[name] = inputs
    return web.json_response(found)


@PromptServer.instance.routes.post("/comfy_worker/validate")
async def validate(request: web.Request) -> web.Response:
    """Return all errors that ComfyUI finds in a workflow, and the outputs that it would drop."""
    return web.json_response(await validate_workflow(await request.json()))
