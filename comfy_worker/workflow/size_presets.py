"""Finds the choices of nodes that override a width and height, such as ``1024x768`` or ``16:9``."""

from __future__ import annotations

import re
from typing import Any

from comfy_worker.workflow.graph import Input, as_link
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["SIZE_CHOICE", "SizePresets"]

# A choice that is a size, one that is a shape, and one that leaves both to the inputs beside it.
SIZE_CHOICE = re.compile(r"(?<!\d)(\d{2,5})\s*[x×*]\s*(\d{2,5})(?!\d)", re.IGNORECASE)
SHAPE_CHOICE = re.compile(
    r"(?<!\d)\d{1,2}\s*:\s*\d{1,2}(?!\d)|square|portrait|landscape", re.IGNORECASE
)
FREE_CHOICE = re.compile(r"custom|manual|free", re.IGNORECASE)


class SizePresets:
    """The size presets of one workflow; get it with ``graph.view(SizePresets)``."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._is_preset: dict[tuple[str, str], bool] = {}

    def find(self, node_id: str) -> Input | None:
        """Return the choice with which a node overrides its own width and height."""
        for node_input in self._graph.widgets(node_id):
            key = (self._graph.class_type(node_id), node_input.name)
            if key not in self._is_preset:
                self._is_preset[key] = self._has_sizes(node_input)
            if self._is_preset[key]:
                return node_input
        return None

    def free_choice(self, preset: Input) -> Any:
        """Return the choice with which a preset uses the width and height inputs.

        Returns None if it has none.
        """
        for choice in self._choices(preset):
            if FREE_CHOICE.search(str(choice)):
                return choice
        return None

    def can_be_free(self, preset: Input) -> bool:
        """Whether a preset uses its node's width and height inputs, or can be set to do so."""
        free = self.free_choice(preset)
        if free is None:
            return False
        is_linked = as_link(self._graph.value(preset)) is not None
        return not is_linked or bool(self._graph.values(preset) == free)

    def _has_sizes(self, node_input: Input) -> bool:
        count = 0
        for choice in map(str, self._choices(node_input)):
            if SIZE_CHOICE.search(choice) or SHAPE_CHOICE.search(choice):
                count += 1
        return count > 1

    def _choices(self, node_input: Input) -> tuple[Any, ...]:
        spec = self._graph.spec(node_input)
        return (spec.choices if spec else None) or ()
