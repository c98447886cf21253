"""The worker's own nodes, loaded by ComfyUI at boot and never written into its folder.

Answers what ``/object_info`` leaves out: which folders are searched for models, which inputs a class validates
itself, and what ComfyUI's own validation finds wrong with a workflow, of which nothing is queued.

Makes the worker's model roots known: every folder that this ComfyUI keeps under its own ``models`` (``loras``,
``unet`` and ``diffusion_models`` ...) is looked for under each root of ``COMFY_WORKER_MODEL_ROOTS`` too, in order.
Which folders there are is asked of ComfyUI, not listed here. Lets a prompt ask for previews and say what
graph is its client's, keeps prompts apart, and has ComfyUI end with its prompt thread.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import execution
import folder_paths
import nodes
from aiohttp import web
from server import PromptServer

from .client_graph import give_clients_graph
from .isolation import keep_prompts_apart
from .output import ComfyWorkerOutput
from .previews import take_preview_method
from .prompt_thread import end_with_prompt_thread

NODE_CLASS_MAPPINGS = {"ComfyWorkerOutput": ComfyWorkerOutput}


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
give_clients_graph()
end_with_prompt_thread()
keep_prompts_apart()


@PromptServer.instance.routes.get("/comfy_worker/folders")
async def folders(_request: web.Request) -> web.Response:
    """Answer which folders ComfyUI searches for which kind of model: ``{"loras": ["/...", ...], ...}``."""
    return web.json_response({name: list(found[0]) for name, found in folder_paths.folder_names_and_paths.items()})


def validated_inputs(node_class: type) -> list[str]:
    """The inputs that a class validates itself, ``*`` for all of them; ``input_types`` for the types of links."""
    function = getattr(node_class, "VALIDATE_INPUTS", None)
    if issubclass(node_class, execution._ComfyNodeInternal):
        function = execution.first_real_override(node_class, "validate_inputs")
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
