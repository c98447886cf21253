"""Overrides: any input of any node, by the node's id or title.

Owns how an override's key is read. What an input takes is asked of its declaration.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from comfy_worker.errors import Ambiguous, InvalidInput, InvalidValue, NoPlace
from comfy_worker.nearest import did_you_mean
from comfy_worker.workflow.constraints import Limits
from comfy_worker.workflow.graph import Input, Workflow, as_link, title_of
from comfy_worker.workflow.node_defs import WIDGET_TYPES, NodeDefs
from comfy_worker.workflow.tracing import Graph

__all__ = ["apply_overrides", "place_of"]


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
    graph = Graph(workflow, defs)
    changed = copy.deepcopy(workflow)
    for key, value in overrides.items():
        place = place_of(graph, key)
        changed[place.node_id]["inputs"][place.name] = _checked(graph, key, place, value)
    return changed


def place_of(graph: Graph, key: str) -> Input:
    """The input that an override's key means."""
    node, dot, name = key.rpartition(".")
    if not dot:
        raise InvalidInput(f"overrides key '{key}' must be written 'node.input', by id or title", [{"key": key}])
    node_id = _node_id(graph.workflow, key, node)
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    known = dict.fromkeys([*(declared.inputs if declared else ()), *graph.workflow[node_id]["inputs"]])
    if declared and name not in known:
        class_type = graph.workflow[node_id]["class_type"]
        raise NoPlace(
            f"overrides '{key}': node {node_id} ({class_type}) has no input '{name}'; {_hint(name, known)}",
            [{"key": key, "node_id": node_id, "inputs": list(known)}],
        )
    return Input(node_id, name)


def _node_id(workflow: Workflow, key: str, node: str) -> str:
    """The node of that id, else the one of that title."""
    if node in workflow:
        return node
    titled = [node_id for node_id in workflow if title_of(workflow, node_id) == node]
    if len(titled) > 1:
        raise Ambiguous(
            f"overrides '{key}': nodes {', '.join(titled)} all have the title '{node}'; write the id",
            [{"key": key, "node_id": one, "class_type": workflow[one]["class_type"]} for one in titled],
        )
    if not titled:
        known = dict.fromkeys([*workflow, *(title_of(workflow, node_id) for node_id in workflow)])
        raise NoPlace(
            f"overrides '{key}': this graph has no node with the id or title '{node}'; {_hint(node, known)}",
            [{"key": key, "nodes": list(workflow)}],
        )
    return titled[0]


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    return did_you_mean(name, names, f"there are {', '.join(names[:12])}")


def _checked(graph: Graph, key: str, place: Input, value: Any) -> Any:
    spec, link = graph.spec(place), as_link(value)
    if link is not None:
        if link.node_id not in graph.workflow:
            raise InvalidValue(
                f"overrides '{key}' links to node {link.node_id}, which this graph lacks", [{"key": key}]
            )
        return list(value)
    if spec is None or spec.type == "*":
        return value
    if WIDGET_TYPES.isdisjoint(spec.type.split(",")):
        raise InvalidValue(
            f"overrides '{key}' takes a {spec.type} from another node; give a link such as ['4', 0]",
            [{"key": key, "type": spec.type}],
        )
    return Limits.of([spec]).checked(key, value)
