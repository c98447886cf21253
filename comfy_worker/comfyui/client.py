"""Calls ComfyUI's HTTP routes, one method for each, over kept connections."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any

from comfy_worker.comfyui.kept_connections import Answer, KeptConnections
from comfy_worker.comfyui.refusals import refusal
from comfy_worker.errors import ComfyUIUnavailable

__all__ = ["CLIENT_GRAPH", "ComfyUIClient"]

log = logging.getLogger(__name__)

# The key of extra_data that holds the workflow as the client sent it.
CLIENT_GRAPH = "comfy_worker_graph"
TIMEOUT_S = 30.0
QUEUE_TIMEOUT_S = 5.0
FILES_TIMEOUT_S = 2.0
# A second POST would queue the graph a second time.
ONCE = frozenset(["/prompt"])


class ComfyUIClient:
    """A typed client of one running ComfyUI; may be shared by threads.

    Args:
        base_url: ``http://127.0.0.1:<port>``.
        timeout_s: how long an answer may take.
        queue_timeout_s: how long an answer may take that only looks for a prompt or removes one.
        has_cancel_route: whether this ComfyUI has ``POST /api/jobs/{id}/cancel``.
    """

    def __init__(
        self,
        base_url: str,
        timeout_s: float = TIMEOUT_S,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
        *,
        has_cancel_route: bool = False,
    ) -> None:
        self._has_cancel_route = has_cancel_route
        self._timeout_s = timeout_s
        self._queue_timeout_s = queue_timeout_s
        self._connections = KeptConnections(base_url)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def answers(self) -> bool:
        """``GET /prompt``, the cheapest route: whether ComfyUI answers, even with an error."""
        try:
            self._request("GET", "/prompt", timeout_s=min(self._timeout_s, QUEUE_TIMEOUT_S))
        except ComfyUIUnavailable:
            return False
        return True

    def system_stats(self, timeout_s: float | None = None) -> dict[str, Any]:
        """``GET /system_stats``: versions, devices, memory in bytes."""
        return self._json("GET", "/system_stats", timeout_s)

    def object_info(self, timeout_s: float | None = None) -> dict[str, Any]:
        """``GET /object_info``: every node class by its ``class_type``."""
        return self._json("GET", "/object_info", timeout_s)

    def queue_prompt(
        self,
        workflow: dict[str, Any],
        *,
        prompt_id: str,
        client_id: str,
        extra_data: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """``POST /prompt``: queue a workflow.

        Args:
            workflow: a graph in API format.
            prompt_id: an id of our choice.
            client_id: whose websocket receives its events.
            extra_data: what goes with the graph: ``preview_method``, ``comfy_worker_graph``, API
                keys; secret.

        Returns:
            ``{prompt_id, number, node_errors}``.

        Raises:
            WorkflowRefused: ComfyUI's validation found errors, listed in the details. Also raised
                if ComfyUI dropped a bad output branch and queued the rest.
        """
        body = {"prompt": workflow, "prompt_id": prompt_id, "client_id": client_id}
        if extra_data:
            body["extra_data"] = dict(extra_data)
        response = self._request("POST", "/prompt", body)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _unexpected(response)
        if not response.ok or answer.get("node_errors"):
            # The client's own graph has the classes that the client knows.
            raise refusal(answer, (extra_data or {}).get(CLIENT_GRAPH) or workflow)
        return answer

    def get_history(self, prompt_id: str) -> dict[str, Any] | None:
        """``GET /history/{prompt_id}``: outputs and status; None until it ends, or if deleted."""
        history = self._json("GET", f"/history/{prompt_id}", self._queue_timeout_s)
        entry = history.get(prompt_id)
        return entry if isinstance(entry, dict) else None

    def get_history_ids(self) -> list[str]:
        """``GET /history``: the prompts that it remembers, oldest first."""
        return list(self._json("GET", "/history"))

    def model_folders(self) -> dict[str, list[str]]:
        """``GET /comfy_worker/folders``, of our own nodes: the folders of each type of model.

        Empty if our nodes are not loaded.
        """
        return self._own("GET", "/comfy_worker/folders") or {}

    def files_of_other_clients(self) -> list[str] | None:
        """``GET /comfy_worker/other_clients``, of our own nodes.

        It lists what other clients of this ComfyUI have in its input, output and temp folders.

        Empty if our nodes are not loaded; None if ComfyUI does not answer in time.
        """
        with suppress(ComfyUIUnavailable):
            found = self._own("GET", "/comfy_worker/other_clients", timeout_s=FILES_TIMEOUT_S)
            return list((found or {}).get("paths", ()))
        return None

    def validated_inputs(self, timeout_s: float | None = None) -> dict[str, list[str]] | None:
        """``GET /comfy_worker/validated``, a route of our own nodes.

        It lists, by node class, the inputs that the class validates itself.

        None if our nodes are not loaded.
        """
        return self._own("GET", "/comfy_worker/validated", timeout_s=timeout_s)

    def validate(self, workflow: dict[str, Any]) -> dict[str, Any] | None:
        """``POST /comfy_worker/validate``, of our own nodes: all of ComfyUI's findings.

        Queues nothing.

        Returns:
            ``{"error", "node_errors"}`` in the form of a refused ``POST /prompt``; both are empty
            if ComfyUI would accept the workflow. None if our nodes are not loaded.
        """
        return self._own("POST", "/comfy_worker/validate", workflow)

    def node_replacements(self, timeout_s: float | None = None) -> dict[str, Any]:
        """``GET /node_replacements``: substitutes of removed classes; empty before ComfyUI 0.33."""
        return self._own("GET", "/node_replacements", timeout_s=timeout_s) or {}

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """``POST /history``: forget prompts."""
        self._order("/history", {"delete": list(prompt_ids)})

    def get_queue(self) -> dict[str, list[Any]]:
        """``GET /queue``: ``queue_running`` and ``queue_pending``; item[1] is the prompt id."""
        return self._json("GET", "/queue", self._queue_timeout_s)

    def is_queued(self, prompt_id: str) -> bool:
        """Whether a prompt is pending or running."""
        queue = self.get_queue()
        items = [*queue.get("queue_running", ()), *queue.get("queue_pending", ())]
        return any(item[1] == prompt_id for item in items)

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or stop it if it runs; other prompts are not touched."""
        if self._has_cancel_route:
            route = f"/api/jobs/{prompt_id}/cancel"
            response = self._request("POST", route, timeout_s=self._queue_timeout_s)
            if response.status not in (404, 405):
                _check(response)
                return
            self._has_cancel_route = False
            log.warning(
                "this ComfyUI does not have POST /api/jobs/{id}/cancel; using /queue and "
                "/interrupt",
                extra={"action": "comfyui.route_missing"},
            )
        self.delete_queue_item(prompt_id)
        self.interrupt(prompt_id)

    def delete_queue_item(self, prompt_id: str) -> None:
        """``POST /queue``: remove a pending prompt; a running one is not touched."""
        self._order("/queue", {"delete": [prompt_id]})

    def interrupt(self, prompt_id: str) -> None:
        """``POST /interrupt``: stop a prompt if it is the one that runs."""
        self._order("/interrupt", {"prompt_id": prompt_id})

    def free(self) -> None:
        """``POST /free``: unload models and cached results before the next prompt."""
        self._order("/free", {"unload_models": True, "free_memory": True})

    def _order(self, route: str, body: dict[str, Any]) -> None:
        _check(self._request("POST", route, body, self._queue_timeout_s))

    def _json(self, method: str, route: str, timeout_s: float | None = None) -> dict[str, Any]:
        return _read(self._request(method, route, timeout_s=timeout_s))

    def _own(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any] | None:
        """Call a route of our own nodes; None if they are not loaded."""
        response = self._request(method, route, body, timeout_s)
        return None if response.status in (404, 405) else _read(response)

    def _request(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        try:
            return self._connections.request(
                method,
                route,
                body,
                timeout_s=timeout_s or self._timeout_s,
                is_repeatable=method == "GET" or route not in ONCE,
            )
        except (OSError, HTTPException, ValueError) as error:
            raise ComfyUIUnavailable(
                f"ComfyUI does not answer {method} {route} ({type(error).__name__}); send the job "
                "again"
            ) from error


def _read(answer: Answer) -> dict[str, Any]:
    try:
        content = answer.json() if answer.ok else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise _unexpected(answer)
    return content


def _check(answer: Answer) -> None:
    if not answer.ok:
        raise _unexpected(answer)


def _unexpected(answer: Answer) -> ComfyUIUnavailable:
    return ComfyUIUnavailable(
        f"ComfyUI answered HTTP {answer.status} to {answer.method} {answer.route}"
    )
