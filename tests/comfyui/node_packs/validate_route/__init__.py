"""A route for tests: ComfyUI's own validation of a workflow, of which nothing is queued.

Stand-ins for models have real names and headers but no weights, so a workflow that uses them must not start.
"""

from __future__ import annotations

import execution
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS: dict[str, type] = {}


@PromptServer.instance.routes.post("/tests/validate")  # type: ignore[untyped-decorator]  # ComfyUI is not here to be read
async def validate(request: web.Request) -> web.Response:
    """Answer what ``POST /prompt`` would find wrong, first with the workflow, then by node."""
    valid, error, _outputs, node_errors = await execution.validate_prompt("validate", await request.json(), None)
    return web.json_response({"error": None if valid else error, "node_errors": node_errors})
