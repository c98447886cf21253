"""The worker's own nodes, loaded by ComfyUI at boot and never written into its folder.

Answers what ``/object_info`` leaves out: which folders are searched for models, which inputs a class validates
itself, and what ComfyUI's own validation finds wrong with a workflow, of which nothing is queued.

Makes the worker's model roots known. Lets a prompt ask for previews and say what graph is its client's, keeps
prompts apart, keeps nodes from files that are not their job's, keeps the prompt thread alive and the cache's keys
small, and has ComfyUI end with its prompt thread. A ComfyUI whose inside is another goes without what does not fit
it, and says so in its log.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

import execution
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
from .roots import add_model_roots, roots_given

NODE_CLASS_MAPPINGS = {"ComfyWorkerOutput": ComfyWorkerOutput}


def apply(change: Callable[[], None]) -> None:
    """Change something in ComfyUI; a change that does not fit this one is logged and left out."""
    try:
        change()
    except Exception as error:  # whatever it is, the nodes and the other changes count
        said = f"{type(error).__name__}: {error}"
        logging.warning("comfy_worker_nodes: %s does not fit this ComfyUI: %s", change.__name__, said)


def model_roots() -> None:
    """Add the worker's."""
    add_model_roots(roots_given())


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
    return web.json_response({name: list(found[0]) for name, found in folder_paths.folder_names_and_paths.items()})


def validated_inputs(node_class: type) -> list[str]:
    """The inputs that a class validates itself, ``*`` for all of them; ``input_types`` for the types of links."""
    function = getattr(node_class, "VALIDATE_INPUTS", None)
    real_override = getattr(execution, "first_real_override", None)
    if real_override and issubclass(node_class, getattr(execution, "_ComfyNodeInternal", ())):
        function = real_override(node_class, "validate_inputs")
    if function is None:
        return []
    found = inspect.getfullargspec(function)
    return [*found.args, *(["*"] if found.varkw else [])]


@PromptServer.instance.routes.get("/comfy_worker/validated")
async def validated(_request: web.Request) -> web.Response:
    """Answer the inputs that each class validates itself; classes that validate none are left out."""
    found = {name: validated_inputs(node_class) for name, node_class in nodes.NODE_CLASS_MAPPINGS.items()}
    return web.json_response({name: inputs for name, inputs in found.items() if inputs})


@PromptServer.instance.routes.post("/comfy_worker/validate")
async def validate(request: web.Request) -> web.Response:
    """Answer what ``POST /prompt`` would find wrong with a workflow in its form, and what it drops in silence."""
    workflow = await request.json()
    accepted, error, kept, node_errors = await execution.validate_prompt("", workflow, None)
    ends = [
        i for i, n in workflow.items() if getattr(nodes.NODE_CLASS_MAPPINGS.get(n["class_type"]), "OUTPUT_NODE", 0)
    ]
    if accepted and set(ends) != set(kept):
        dropped = ", ".join(sorted(set(ends) - set(kept)))
        error = {"type": "dropped_output", "message": "ComfyUI would drop output nodes", "details": dropped}
    return web.json_response({"error": error, "node_errors": node_errors})
