"""Applies overrides: values for any input of any node, by the node's id or title."""

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

# How many names the details and the sentence of an error list.
MAX_LISTED = 500
MAX_NAMED = 12


def apply_overrides(workflow: Workflow, defs: NodeDefs, overrides: Mapping[str, Any]) -> Workflow:
    """Set inputs in a copy of a workflow.

    Args:
        workflow: is not changed.
        defs: the node classes of this ComfyUI. Inputs of other classes are set unchecked.
        overrides: by ``node.input``, split at the last dot, with the node's id or title. A value
            may replace a link, and a link ``[node_id, slot]`` a value.

    Returns:
        The changed copy.

    Raises:
        InvalidInput: a key without a dot, or a value of the wrong type.
        InvalidValue: the input does not accept the value, or two keys set it to different values.
        NoPlace: the node or the input does not exist; the nearest names are listed.
        Ambiguous: several nodes have the title, or several files the name.
        ModelNotFound: a model file is not installed.
    """
    graph = TypedWorkflow(workflow, defs)
    changed = copied(workflow)
    keys = OverrideKeys(graph)
    key_of: dict[Input, str] = {}
    for key, value in overrides.items():
        node_input = keys.input_of(key)
        other = key_of.setdefault(node_input, key)
        if overrides[other] != value:
            raise InvalidValue(
                f"overrides '{brief(other)}' and '{brief(key)}' both set {node_input}; send only "
                "one of them",
                [{"key": brief(key), "other": brief(other)}],
            )
        node = changed[node_input.node_id]
        node["inputs"][node_input.name] = _checked(graph, key, node_input, value)
    return changed


class OverrideKeys:
    """Finds the inputs of one workflow that the keys of overrides mean."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._workflow = graph.workflow
        self._titles: dict[str, list[str]] | None = None

    def input_of(self, key: str) -> Input:
        """Return the input that a key means.

        Raises:
            InvalidInput: a key without a dot.
            NoPlace: the node or the input does not exist; the nearest names are listed.
            Ambiguous: several nodes have the title.
        """
        node, dot, name = key.rpartition(".")
        shown = brief(key)
        if not dot:
            raise InvalidInput(
                f"overrides key '{shown}' must have the form 'node.input', "
                "where node is an id or a title",
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
        """Return the node with that id, or else with that title."""
        if node in self._workflow:
            return node
        by_title = self._nodes_by_title()
        titled = by_title.get(node, [])
        if len(titled) > 1:
            raise self._ambiguous(key, node, titled[:MAX_LISTED])
        if titled:
            return titled[0]
        shown = brief(key)
        known = dict.fromkeys([*self._workflow, *by_title])
        raise NoPlace(
            f"overrides '{shown}': this graph has no node with the id or title '{brief(node)}'; "
            f"{_hint(node, known)}",
            [{"key": shown, "nodes": list(self._workflow)[:MAX_LISTED]}],
        )

    def _ambiguous(self, key: str, title: str, node_ids: list[str]) -> Ambiguous:
        shown = brief(key)
        details = []
        for node_id in node_ids:
            class_type = self._workflow[node_id]["class_type"]
            details.append({"key": shown, "node_id": node_id, "class_type": class_type})
        return Ambiguous(
            f"overrides '{shown}': nodes {', '.join(node_ids[:MAX_NAMED])} all have the title "
            f"'{brief(title)}'; write the id",
            details,
        )

    def _nodes_by_title(self) -> dict[str, list[str]]:
        if self._titles is None:
            self._titles = {}
            for node_id in self._workflow:
                self._titles.setdefault(title_of(self._workflow, node_id), []).append(node_id)
        return self._titles


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    first = ", ".join(brief(other) for other in names[:MAX_NAMED])
    return did_you_mean(name, names, f"there are {first}")


def _checked(graph: TypedWorkflow, key: str, node_input: Input, value: Any) -> Any:
    """Return a value as the input accepts it."""
    link = as_link(value)
    if link is not None:
        if link.node_id not in graph.workflow:
            raise InvalidValue(
                f"overrides '{key}' links to node {link.node_id}, "
                "which does not exist in this workflow",
                [{"key": key}],
            )
        return list(value)
    spec = graph.spec(node_input)
    if spec is None or spec.type == "*":
        return value
    if WIDGET_TYPES.isdisjoint(spec.type.split(",")):
        raise InvalidValue(
            f"overrides '{key}' takes a {spec.type} from another node; give a link such as "
            "['4', 0]",
            [{"key": key, "type": spec.type}],
        )
    return InputConstraint.of([spec]).checked(key, value)
