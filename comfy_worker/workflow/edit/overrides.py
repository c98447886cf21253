"""Overrides: any input of any node, by the node's id or title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_worker.errors import Ambiguous, InvalidInput, InvalidValue, NoPlace, brief
from comfy_worker.nearest import did_you_mean
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.graph import Input, Workflow, as_link, copied, title_of
from comfy_worker.workflow.node_defs import WIDGET_TYPES, NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["OverrideKeys", "apply_overrides"]

# So many names go into an error's details.
MAX_LISTED = 500


def apply_overrides(workflow: Workflow, defs: NodeDefs, overrides: Mapping[str, Any]) -> Workflow:
    """Set inputs of a copy of a workflow.

    Args:
        workflow: stays as it is.
        defs: the classes that this ComfyUI has; inputs of others are set unchecked.
        overrides: by ``node.input``, split at the last dot, the node by id or by title. A value takes the place of
            a link, and a link ``[node_id, slot]`` that of a value.

    Returns:
        The changed copy.

    Raises:
        InvalidInput: a key without a dot, or a value of the wrong type.
        InvalidValue: a value that the input does not take.
        NoPlace: a node or an input that is not there; the nearest are named.
        Ambiguous: several nodes have that title; or a name fits several files.
        ModelNotFound: a model file that is not installed.
    """
    graph = TypedWorkflow(workflow, defs)
    changed = copied(workflow)
    keys = OverrideKeys(graph)
    for key, value in overrides.items():
        place = keys.place(key)
        changed[place.node_id]["inputs"][place.name] = _checked(graph, key, place, value)
    return changed


class OverrideKeys:
    """Reads the keys of overrides: the inputs of one workflow, by a node's id or title."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._workflow = graph.workflow
        self._titles: dict[str, list[str]] | None = None

    def place(self, key: str) -> Input:
        """The input that a key means.

        Raises:
            InvalidInput: a key without a dot.
            NoPlace: a node or an input that is not there; the nearest are named.
            Ambiguous: several nodes have that title.
        """
        node, dot, name = key.rpartition(".")
        shown = brief(key)
        if not dot:
            raise InvalidInput(
                f"overrides key '{shown}' must have the form 'node.input', where node is an id or a title",
                [{"key": shown}],
            )
        node_id = self._node_id(key, node)
        declared = self._graph.declared(node_id)
        own = self._workflow[node_id]["inputs"]
        if declared is None or name in declared.inputs or name in own:
            return Input(node_id, name)
        known = dict.fromkeys([*declared.inputs, *own])
        raise NoPlace(
            f"overrides '{shown}': node {node_id} ({declared.name}) has no input '{brief(name)}'; "
            f"{_hint(name, known)}",
            [{"key": shown, "node_id": node_id, "inputs": list(known)[:MAX_LISTED]}],
        )

    def _node_id(self, key: str, node: str) -> str:
        """The node of that id, else the one of that title."""
        if node in self._workflow:
            return node
        by_title = self._nodes_by_title()
        titled, shown = by_title.get(node, []), brief(key)
        if len(titled) > 1:
            first = titled[:MAX_LISTED]
            raise Ambiguous(
                f"overrides '{shown}': nodes {', '.join(first[:12])} all have the title '{brief(node)}'; "
                "write the id",
                [
                    {
                        "key": shown,
                        "node_id": other_id,
                        "class_type": self._workflow[other_id]["class_type"],
                    }
                    for other_id in first
                ],
            )
        if not titled:
            known = dict.fromkeys([*self._workflow, *by_title])
            raise NoPlace(
                f"overrides '{shown}': this graph has no node with the id or title '{brief(node)}'; "
                f"{_hint(node, known)}",
                [{"key": shown, "nodes": list(self._workflow)[:MAX_LISTED]}],
            )
        return titled[0]

    def _nodes_by_title(self) -> dict[str, list[str]]:
        if self._titles is None:
            self._titles = {}
            for node_id in self._workflow:
                self._titles.setdefault(title_of(self._workflow, node_id), []).append(node_id)
        return self._titles


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    first = ", ".join(brief(other) for other in names[:12])
    return did_you_mean(name, names, f"there are {first}")


def _checked(graph: TypedWorkflow, key: str, place: Input, value: Any) -> Any:
    spec, link = graph.spec(place), as_link(value)
    if link is not None:
        if link.node_id not in graph.workflow:
            raise InvalidValue(
                f"overrides '{key}' links to node {link.node_id}, which does not exist in this workflow",
                [{"key": key}],
            )
        return list(value)
    if spec is None or spec.type == "*":
        return value
    if WIDGET_TYPES.isdisjoint(spec.type.split(",")):
        raise InvalidValue(
            f"overrides '{key}' takes a {spec.type} from another node; give a link such as ['4', 0]",
            [{"key": key, "type": spec.type}],
        )
    return InputConstraint.of([spec]).checked(key, value)
