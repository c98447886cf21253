"""Adds the route that cancels one prompt to versions of ComfyUI that lack it.

Clients that speak Comfy's API through a proxy cancel with ``POST /api/jobs/{prompt_id}/cancel``,
which came after 0.3.75. Without it, what they cancel goes on and keeps the GPU from the jobs.
"""

from __future__ import annotations

import nodes
from aiohttp import web
from server import PromptServer

__all__ = ["add_cancel_route"]

PATH = "/jobs/{job_id}/cancel"


def add_cancel_route() -> None:
    """Add the route, unless this ComfyUI has it."""
    routes = PromptServer.instance.routes
    known = {getattr(route, "path", "").removeprefix("/api") for route in routes}
    if PATH not in known:
        routes.post(PATH)(cancel_prompt)


async def cancel_prompt(request: web.Request) -> web.Response:
    """Interrupt a prompt that runs, or remove it from the queue; a finished one stays."""
    queue = PromptServer.instance.prompt_queue
    prompt_id = request.match_info["job_id"]
    running, _waiting = queue.get_current_queue()
    if any(item[1] == prompt_id for item in running):
        nodes.interrupt_processing()
        return web.json_response({"cancelled": True})
    removed = queue.delete_queue_item(lambda item: item[1] == prompt_id)
    return web.json_response({"cancelled": bool(removed)})
