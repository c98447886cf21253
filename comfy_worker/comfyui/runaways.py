"""Refuses graphs for which ComfyUI had to be ended repeatedly.

A node that ignores interrupts (a slow regular expression, a loop in C) can only be stopped by
ending ComfyUI. All clients then lose the loaded models. One graph may do so twice; then it is
refused for a while.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

from comfy_worker.errors import WorkflowRefused, brief
from comfy_worker.workflow.graph import Workflow, links_of, title_of

__all__ = ["Runaways", "fingerprints"]

MAX_ENDED = 2
REFUSED_FOR_S = 600.0
REMEMBERED = 200
# The part of a file name that differs between jobs.
JOB_FOLDER = re.compile(r"[0-9a-f]{32}/")
OF_THE_JOB = {"comfy_worker_folder"}


def fingerprints(workflow: Workflow) -> dict[str, str]:
    """Compute a digest of each node: of its class, its literals, and the nodes above it.

    Two nodes that would do the same have the same digest, whatever their ids and titles are.
    """
    digests: dict[str, str] = {}
    for start in workflow:
        if start in digests:
            continue
        # The nodes from the start down to the one that is looked at, each with its links that
        # remain. Recursion would be too deep for a long chain.
        path = {start: iter(links_of(workflow[start]).values())}
        while path:
            node_id = next(reversed(path))
            link = next(path[node_id], None)
            if link is None:
                del path[node_id]
                digests[node_id] = _digest(workflow, node_id, digests)
                continue
            above = link.node_id
            is_done = above in digests or above in path
            if above in workflow and not is_done:
                path[above] = iter(links_of(workflow[above]).values())
    return digests


def _digest(workflow: Workflow, node_id: str, above: Mapping[str, str]) -> str:
    node = workflow[node_id]
    links = links_of(node)
    inputs = {}
    for name, value in node["inputs"].items():
        if name in links:
            inputs[name] = ["link", above.get(links[name].node_id, ""), links[name].slot]
        elif name not in OF_THE_JOB:
            inputs[name] = value
    text = JOB_FOLDER.sub("", json.dumps([node["class_type"], inputs], sort_keys=True))
    return hashlib.sha256(text.encode()).hexdigest()


class Runaways:
    """The graphs for which ComfyUI had to be ended; may be shared by threads.

    Args:
        refused_for_s: how long a graph is refused after ComfyUI was ended for it too often.
    """

    def __init__(self, refused_for_s: float = REFUSED_FOR_S) -> None:
        self._refused_for_s = refused_for_s
        self._lock = threading.Lock()
        # By digest, how often ComfyUI was ended and when last.
        self._ended: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note(self, workflow: Workflow, node_id: str | None) -> None:
        """Remember that ComfyUI was ended because of a graph.

        Args:
            workflow: as it was queued.
            node_id: the node that ran. If None, all nodes together are remembered.
        """
        digests = fingerprints(workflow)
        key = digests[node_id] if node_id in digests else _combined(digests)
        with self._lock:
            count, _ = self._ended.pop(key, (0, 0.0))
            self._ended[key] = (count + 1, time.monotonic())
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)

    def forgive(self, workflow: Workflow) -> None:
        """Forget a graph that has completed: its node did not end ComfyUI, something else did."""
        with self._lock:
            if not self._ended:
                return
        digests = fingerprints(workflow)
        with self._lock:
            for digest in (*digests.values(), _combined(digests)):
                self._ended.pop(digest, None)

    def check(self, workflow: Workflow) -> None:
        """Refuse a graph for which ComfyUI was ended too often.

        Raises:
            WorkflowRefused: names the node and the time that is left.
        """
        with self._lock:
            if not self._ended:
                return
        digests = fingerprints(workflow)
        for node_id, digest in {**digests, "": _combined(digests)}.items():
            wait_s = self._wait_s(digest)
            if wait_s <= 0:
                continue
            where = "this graph"
            if node_id in workflow:
                where = f"node {brief(node_id)} ({brief(title_of(workflow, node_id))})"
            raise WorkflowRefused(
                f"{where} could not be interrupted {MAX_ENDED} times, and each time the worker "
                "had to end ComfyUI, which unloaded all models; give it other inputs, or send it "
                f"again in {wait_s / 60:.0f} minutes",
                [{"node_id": node_id or None, "type": "runaway", "retry_after_s": round(wait_s)}],
            )

    def _wait_s(self, digest: str) -> float:
        """Return how long a node is still refused, in seconds."""
        with self._lock:
            count, ended_at = self._ended.get(digest, (0, 0.0))
            left_s = ended_at + self._refused_for_s - time.monotonic()
            if count and left_s <= 0:
                del self._ended[digest]
        return left_s if count >= MAX_ENDED else 0.0


def _combined(digests: Mapping[str, str]) -> str:
    """Return one digest for all nodes together."""
    return hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()
