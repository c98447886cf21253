"""Adds the route that cancels one prompt to versions of ComfyUI that lack it.

Clients that speak Comfy's API through a proxy cancel with ``POST /api/jobs/{prompt_id}/cancel``,
which came after 0.3.75. Without it, what they cancel goes on and keeps the GPU from the jobs.
"""

from __future__ import annotations

import asyncio

import nodes
from aiohttp import web
from server import PromptServer

__all__ = ["add_cancel_route"]

PATH = "/jobs/{job_id}/cancel"
TRIES, PAUSE_S = 5, 0.1


def add_cancel_route() -> None:
    """Add the route, unless this ComfyUI has it."""
    routes = PromptServer.instance.routes
    known = {getattr(route, "path", "").removeprefix("/api") for route in routes}
    if PATH not in known:
        routes.post(PATH)(cancel_prompt)


async def cancel_prompt(request: web.Request) -> web.Response:
    """Interrupt a prompt that runs, or remove it from the queue; a finished one stays."""
    prompt_id = request.match_info["job_id"]
    queue = PromptServer.instance.prompt_queue
    if not _is_running(prompt_id):
        removed = queue.delete_queue_item(lambda item: item[1] == prompt_id)
        return web.json_response({"cancelled": bool(removed)})
    # ComfyUI forgets an interrupt that comes between the queue and the first node.
    for _ in range(TRIES):
        nodes.interrupt_processing()
        await asyncio.sleep(PAUSE_S)
        if not _is_running(prompt_id):
            break
    return web.json_response({"cancelled": True})


def _is_running(prompt_id: str) -> bool:
    running, _waiting = PromptServer.instance.prompt_queue.get_current_queue()
    return any(item[1] == prompt_id for item in running)
