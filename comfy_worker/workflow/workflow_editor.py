"""Edits a copy of a workflow: adds nodes, sets inputs, moves links."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from comfy_worker.workflow.graph import Input, Link, Workflow, consumers, copied, links_of

__all__ = ["WorkflowEditor"]

DECIMAL = re.compile(r"[0-9]{1,18}")


class WorkflowEditor:
    """A copy of a workflow and the few edits that splices consist of.

    Args:
        workflow: is not changed.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = copied(workflow)
        taken = set(workflow)
        # A link to a node that does not exist must not suddenly lead to a new node.
        for node in workflow.values():
            taken |= {link.node_id for link in links_of(node).values()}
        decimal_ids = [int(node_id) for node_id in taken if DECIMAL.fullmatch(node_id)]
        self._last_id = max(decimal_ids, default=0)

    def add(self, class_type: str, title: str, **inputs: Any) -> str:
        """Add a node under a fresh id; links among the inputs are given as :class:`Link`.

        Returns:
            The new node's id.
        """
        self._last_id += 1
        node_id = str(self._last_id)
        self.workflow[node_id] = {
            "class_type": class_type,
            "inputs": {name: _as_json(value) for name, value in inputs.items()},
            "_meta": {"title": title},
        }
        return node_id

    def set(self, node_input: Input, value: Any) -> None:
        """Set one input to a value, or link it if the value is a :class:`Link`."""
        self.workflow[node_input.node_id]["inputs"][node_input.name] = _as_json(value)

    def rewire(self, targets: Mapping[Link, Link], where: Callable[[Input], bool]) -> None:
        """Link those consumers of some outputs for which ``where`` holds to other outputs."""
        readers = consumers(self.workflow)
        for source, target in targets.items():
            for node_input in readers.get(source, ()):
                if where(node_input):
                    self.set(node_input, target)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, Link) else value
