"""Follows the links of a UI-format workflow from an input up to what finally feeds it."""

from __future__ import annotations

from typing import NamedTuple

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.active_graph import ActiveGraph, Bypass, Source, Step
from comfy_worker.workflow.convert.ui_format import Json, id_of, passed_on, type_of
from comfy_worker.workflow.convert.work_limit import WorkLimit

__all__ = ["LinkResolver"]


class _Reached(NamedTuple):
    """The end of a way, and the type to look for there; None for the type at its start."""

    end: Bypass | Source
    wanted_type: str | None = None


class LinkResolver:
    """Finds what finally feeds an input.

    Goes up link by link, into and out of subgraphs, through nodes that only pass values on. Results
    are kept, so that the work does not grow with the number of ways over a stop: up to a bypassed
    node there is one result for each stop, and beyond it one for each type.
    """

    def __init__(self, work: WorkLimit) -> None:
        self._work = work
        self._reached: dict[Step, _Reached] = {}
        self._behind: dict[tuple[Bypass, str], Source] = {}

    def source_of(self, graph: ActiveGraph, node: Json, slot: int) -> Source:
        """Find what feeds an input of a node.

        Raises:
            InvalidWorkflow: the links form a circle, or there are too many.
        """
        wanted_type = type_of(node["inputs"][slot])
        step = Step(graph, id_of(node), slot)
        passed: dict[tuple[Bypass, str], None] = {}
        while True:
            reached = self._walk(step)
            wanted_type = reached.wanted_type or wanted_type
            if not isinstance(reached.end, Bypass):
                source = reached.end
                break
            bypass = (reached.end, wanted_type)
            if bypass in self._behind:
                source = self._behind[bypass]
                break
            if bypass in passed:
                raise _circle(reached.end)
            passed[bypass] = None
            above = self._through(*bypass)
            if above is None:
                source = None
                break
            step = above
        self._behind.update(dict.fromkeys(passed, source))
        return source

    def _walk(self, start: Step) -> _Reached:
        """Go up to a bypassed node, or to the end."""
        way: dict[Step, str | None] = {}
        step: Step | Bypass | Source = start
        while isinstance(step, Step) and step not in self._reached:
            if step in way:
                raise _circle(step)
            self._work.count_steps()
            way[step] = step.graph.type_at(step) if step.renews_type else None
            step = step.graph.above_output(step) if step.is_output else step.graph.above_input(step)
        reached = self._reached[step] if isinstance(step, Step) else _Reached(step)
        for passed, renewed_type in reversed(way.items()):
            if reached.wanted_type is None and renewed_type is not None:
                reached = _Reached(reached.end, renewed_type)
            self._reached[passed] = reached
        return reached

    def _through(self, bypass: Bypass, wanted_type: str) -> Step | None:
        """Return the input that a bypassed node passes on."""
        node = bypass.graph.node(bypass.node_id)
        self._work.count_steps(1 + len(node["inputs"]))
        slot = passed_on(node, bypass.slot, wanted_type)
        return None if slot is None else Step(bypass.graph, bypass.node_id, slot, is_direct=False)


def _circle(step: Step | Bypass) -> InvalidWorkflow:
    node_id = step.graph.prefix + step.node_id
    return InvalidWorkflow(
        f"the links form a circle at node {node_id}; remove one of them",
        [{"node_id": node_id, "problem": "its links form a circle"}],
    )
