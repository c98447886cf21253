"""A workflow in the editor's own format -> API format.

Which node feeds which is found in :mod:`~comfy_worker.workflow.convert.flatten`. Which widget value belongs to
which input is for comfy-cli's ``convert_ui_to_api`` to say. It gets every node by itself,
without links and under a class of its own, since what it makes of links, primitives and some classes differs from
what the frontend makes of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.flatten import FlatNode, Value, flatten
from comfy_worker.workflow.convert.ui_format import is_editor_file
from comfy_worker.workflow.graph import Input, Link, Need, Workflow, parse
from comfy_worker.workflow.node_defs import InputSpec, NodeClass, NodeDefs
from comfy_worker.workflow.tracing import with_text_ids

__all__ = ["Converted", "read_workflow", "resolve_variants"]

# Widgets of the frontend that comfy-cli does not know; each holds one text.
TEXT_WIDGETS = frozenset({"AUDIO_RECORD"})
# The frontend's own widget behind such an input, if nothing says otherwise: what becomes of the seed after a run.
SEEDS = frozenset({"seed", "noise_seed"})
# What the frontend gives a class that is none of ComfyUI's.
SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
GROUP_NODE = re.compile(r"workflow[>/]")

COMMENT = re.compile(r"/\*[\s\S]*?\*/|//.*")
VARIANT_PIECE = re.compile(r"\\[\s\S]|[{}|]|[^\\{}|]+|\\")


@dataclass(frozen=True)
class Converted:
    """A graph, and what only the editor's format says of it.

    Attributes:
        workflow: API format.
        needs: the model files that its nodes name, and where to get them.
        packs: by class, the node pack that brings it.
        variants: the inputs whose text may hold ``{a|b}``.
    """

    workflow: Workflow
    needs: tuple[Need, ...] = ()
    packs: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[Input, ...] = ()


def read_workflow(value: Any, defs: NodeDefs) -> Converted:
    """Read a graph in either of ComfyUI's two formats.

    Args:
        value: JSON already read; stays as it is.
        defs: the classes that this ComfyUI has. Nodes of others become what can be told of them without.

    Raises:
        InvalidWorkflow: it is neither; or what it holds cannot become a graph.
    """
    if not is_editor_file(value):
        return Converted(with_text_ids(parse(value), defs))
    flat = flatten(value)
    _refuse_unreadable(flat)
    workflow = parse(_converted(flat, defs))
    listed = [*_models(value), *(model for one in flat for model in _models(one.node["properties"]))]
    needs = [Need(str(model["directory"]), str(model["name"]), model.get("url")) for model in listed]
    return Converted(
        workflow,
        needs=tuple(dict.fromkeys(needs)),
        packs={_class_of(one): pack for one in flat if (pack := _pack(one.node))},
        variants=tuple(
            Input(one.node_id, spec.name)
            for one in flat
            if (declared := defs.get(_class_of(one)))
            for spec in declared.inputs.values()
            if spec.options.get("dynamicPrompts") and not _is_from_outside(one.fed.get(spec.name))
        ),
    )


def resolve_variants(workflow: Workflow, variants: Iterable[Input], seed: int) -> None:
    """Choose one of each ``{a|b}`` in texts and leave comments out, as the frontend does when it exports.

    Args:
        workflow: changed in place.
        variants: the inputs that may hold such a text.
        seed: the same one chooses the same.
    """
    generator = random.Random(seed)  # noqa: S311
    for place in variants:
        text = workflow[place.node_id]["inputs"].get(place.name)
        if isinstance(text, str):
            workflow[place.node_id]["inputs"][place.name] = _chosen(text, generator)


def _chosen(text: str, generator: random.Random) -> str:
    open_blocks = [[""]]
    for piece in VARIANT_PIECE.findall(COMMENT.sub("", text)):
        if piece == "{":
            open_blocks.append([""])
        elif piece == "|" and len(open_blocks) > 1:
            open_blocks[-1].append("")
        elif piece == "}" and len(open_blocks) > 1:
            choices = open_blocks.pop()
            open_blocks[-1][-1] += generator.choice(choices)
        else:
            open_blocks[-1][-1] += piece
    while len(open_blocks) > 1:  # a block that nobody closed ends with the text
        choices = open_blocks.pop()
        open_blocks[-1][-1] += generator.choice(choices)
    return re.sub(r"\\([{}|])", r"\1", open_blocks[0][0])


def _refuse_unreadable(flat: list[FlatNode]) -> None:
    """Refuse nodes that stand for something which the file does not hold or that has no form here."""
    if not flat:
        raise InvalidWorkflow("workflow has no node that runs: all are muted, bypassed or notes")
    problems = {}
    for one in flat:
        kind = _class_of(one)
        if SUBGRAPH_ID.fullmatch(kind):
            problems[one.node_id] = "its subgraph is not in the file"
        elif GROUP_NODE.match(kind):
            problems[one.node_id] = "it is a group node of the old kind; convert it to a subgraph in ComfyUI"
        elif not kind:
            problems[one.node_id] = "it has no type"
    _refuse(flat, problems)


def _refuse(flat: list[FlatNode], problems: Mapping[str, str]) -> None:
    """Raise where nodes have problems, named by their ids."""
    details = [
        {
            "node_id": one.node_id,
            "title": one.node.get("title") or _class_of(one),
            "class_type": _class_of(one),
            "pack": _pack(one.node),
            "problem": problems[one.node_id],
        }
        for one in flat
        if one.node_id in problems
    ]
    if details:
        first = details[0]
        raise InvalidWorkflow(
            f"node {first['node_id']} ({first['title']}) cannot be converted: {first['problem']}", details
        )


def _converted(flat: list[FlatNode], defs: NodeDefs) -> Workflow:
    """The nodes in API format, fed as they are."""
    # Importing it takes 0.3 s, which graphs in API format need not wait for.
    from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api

    declared = {one.node_id: defs.get(_class_of(one)) for one in flat}
    known = {node_id: _as_object_info(found) for node_id, found in declared.items() if found}
    nodes = [_alone(one, declared[one.node_id]) for one in flat]
    try:
        found: Workflow = convert_ui_to_api({"nodes": nodes, "links": []}, known)
    except WorkflowConversionError as error:
        raise InvalidWorkflow(f"workflow cannot be converted: {error}") from error
    _refuse(flat, {one.node_id: "its values have no readable form" for one in flat if one.node_id not in found})
    for one in flat:
        node = found[one.node_id]
        node["class_type"] = _class_of(one)
        node["inputs"] = {
            name: value[0] if isinstance(value, tuple) else value for name, value in node["inputs"].items()
        }
        for name, fed in one.fed.items():
            if isinstance(fed, Value):
                if fed.value is not None:
                    node["inputs"][name] = {"__value__": fed.value} if isinstance(fed.value, list) else fed.value
            elif fed.node_id in found:
                node["inputs"][name] = list(fed)
            else:  # linked to a muted node
                node["inputs"].pop(name, None)
    return found


def _alone(one: FlatNode, declared: NodeClass | None) -> dict[str, Any]:
    """A node for comfy-cli: of the class that is named by its id, no sockets, and no other name for its class."""
    return {
        "id": one.node_id,
        "type": one.node_id,
        "title": one.node.get("title") or (declared.display_name if declared else _class_of(one)),
        "inputs": [{**entry, "link": None} for entry in one.node["inputs"] if entry.get("widget")],
        "widgets_values": _values(one.node.get("widgets_values"), declared),
    }


def _values(values: Any, declared: NodeClass | None) -> Any:
    """The values of a node's widgets, without those that comfy-cli takes for something else.

    Where there is one for each of the frontend's widgets (old files hold one for a forced input too), their places
    tell what each is. An object, which would stand for other inputs, is wrapped.
    """
    places = [place for spec in declared.inputs.values() for place in _places(spec)] if declared else []
    if not isinstance(values, list) or not places:
        return values
    if len(values) != len(places):
        places = [place for place in places if place != "forced"]
    if len(values) == len(places):
        pairs = zip(values, places, strict=True)
        values = ["fixed" if place == "control" else value for value, place in pairs if place != "forced"]
    return [(value,) if isinstance(value, dict) else value for value in values]


def _places(spec: InputSpec) -> list[str]:
    """What ``widgets_values`` holds for an input."""
    if spec.options.get("forceInput"):
        return ["forced"]
    is_controlled = spec.type == "INT" and spec.options.get("control_after_generate", spec.name in SEEDS)
    return (
        ["value", "control"] if is_controlled else ["value"] if spec.is_widget or spec.type in TEXT_WIDGETS else []
    )


def _as_object_info(declared: NodeClass) -> dict[str, Any]:
    """A class as ``/object_info`` declares it, but for what comfy-cli reads otherwise than the frontend."""
    groups: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for spec in declared.inputs.values():
        groups["required" if spec.required else "optional"][spec.name] = _as_declared(spec)
    return {"input": groups, "input_order": {group: list(entries) for group, entries in groups.items()}}


def _as_declared(spec: InputSpec) -> list[Any]:
    # Variants are chosen later, by the job's seed; a socket has no default.
    is_socket = not spec.is_widget or spec.options.get("defaultInput")
    left_out = {"dynamicPrompts", "default"} if is_socket else {"dynamicPrompts"}
    options = {key: value for key, value in spec.options.items() if key not in left_out}
    kind = "STRING" if spec.type in TEXT_WIDGETS else spec.type
    return [list(spec.choices) if spec.is_listed and spec.choices is not None else kind, options]


def _is_from_outside(fed: Link | Value | None) -> bool:
    """Whether an input's value is one that a subgraph shows on its host, which the frontend leaves as it is."""
    return isinstance(fed, Value) and fed.is_outside


def _class_of(one: FlatNode) -> str:
    return str(one.node["type"])


def _models(holder: Any) -> list[dict[str, Any]]:
    """The model files that a file or a node's properties name."""
    listed = holder.get("models") if isinstance(holder, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [entry for entry in entries if entry.get("name") and entry.get("directory")]


def _pack(node: dict[str, Any]) -> str:
    """The node pack that a node says it comes from; empty for ComfyUI's own."""
    pack = str(node["properties"].get("cnr_id") or node["properties"].get("aux_id") or "")
    return "" if pack == "comfy-core" else pack
