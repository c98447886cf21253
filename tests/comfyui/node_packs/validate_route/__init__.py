"""A route for tests: ComfyUI's own validation of a workflow, of which nothing is queued.

Stand-ins for models have real names and headers but no weights, so a workflow that uses them must not start.
"""

from __future__ import annotations

import execution
import nodes
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS: dict[str, type] = {}


@PromptServer.instance.routes.post("/tests/validate")  # type: ignore[untyped-decorator]  # ComfyUI is not here to be read
async def validate(request: web.Request) -> web.Response:
    """Answer what ``POST /prompt`` would find wrong, by node too, and the outputs that it would drop."""
    workflow = await request.json()
    replacements = getattr(PromptServer.instance, "node_replace_manager", None)
    if replacements is not None:
        replacements.apply_replacements(workflow)
    valid, error, kept, node_errors = await execution.validate_prompt("validate", workflow, None)
    classes = {
        node_id: nodes.NODE_CLASS_MAPPINGS.get(node["class_type"])
        for node_id, node in workflow.items()
    }
    outputs = {
        node_id for node_id, found in classes.items() if getattr(found, "OUTPUT_NODE", False)
    }
    answer = {"error": None if valid else error, "node_errors": node_errors}
    return web.json_response({**answer, "dropped": sorted(outputs - set(kept)) if valid else []})
