"""Converts a workflow from the UI format to the API format.

:mod:`~comfy_worker.workflow.convert.flatten` finds out which node feeds which. comfy-cli's
``convert_ui_to_api`` assigns widget values to inputs. It gets every node alone, without links and
as a class of its own, because it resolves links, primitives and some classes otherwise than the
frontend: on the official templates our exports match all of the frontend's, comfy-cli's do not.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.errors import InvalidWorkflow, brief
from comfy_worker.workflow.convert.active_graph import Value
from comfy_worker.workflow.convert.flatten import FlatNode, flatten
from comfy_worker.workflow.convert.ui_format import Json, as_text, dicts, is_editor_file
from comfy_worker.workflow.convert.variants import MAX_VARIANT_TEXT, choose_variants, is_too_long
from comfy_worker.workflow.convert.widgets import (
    as_object_info,
    has_socket_for_widgets,
    widget_values,
    with_names,
)
from comfy_worker.workflow.convert.work_limit import WorkLimit
from comfy_worker.workflow.graph import Input, Link, Workflow, number
from comfy_worker.workflow.model_files import CORE_PACK, ModelFile
from comfy_worker.workflow.node_defs import NodeClass, NodeDefs
from comfy_worker.workflow.parse import parse

__all__ = ["Converted", "read_workflow", "resolve_variants"]

# Types of nodes that are not classes of ComfyUI.
SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
GROUP_NODE = re.compile(r"workflow[>/]")
# comfy-cli gets so many nodes at once, so that a cancelled job is noticed in between.
CHUNK = 200


@dataclass(frozen=True)
class Converted:
    """A graph, and facts that only the UI format holds.

    Attributes:
        workflow: API format.
        needs: the model files that its nodes name, with their URLs.
        packs: by class, the node pack that it comes from.
        variants: the inputs whose text may hold ``{a|b}``.
        pack_versions: by node pack, the version that made the file: of the registry, or a commit.
    """

    workflow: Workflow
    needs: tuple[ModelFile, ...] = ()
    packs: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[Input, ...] = ()
    pack_versions: Mapping[str, str] = field(default_factory=dict)


def read_workflow(value: Any, defs: NodeDefs, check: Callable[[], None] | None = None) -> Converted:
    """Read a graph in either of ComfyUI's two formats.

    Args:
        value: JSON that has been read; it is not changed.
        defs: the classes that this ComfyUI has. Nodes of other classes are converted as far as the
            file describes them.
        check: called repeatedly; raises if the job must end.

    Raises:
        InvalidWorkflow: the value has neither format, or cannot be converted.
    """
    if not is_editor_file(value):
        return Converted(parse(value))
    work = WorkLimit(check)
    flat = flatten(value, work, unique_ids=defs.has_unique_subgraph_ids)
    _refuse_unreadable(flat)
    _measure(flat, work)
    workflow = parse(_Converter(defs, work).convert(flat))
    holders = (value, *_distinct(node.node["properties"] for node in flat))
    needs: dict[ModelFile, None] = {}
    for holder in holders:
        for model in _models(holder):
            needs[ModelFile(as_text(model["directory"]), as_text(model["name"]), _url(model))] = (
                None
            )
    packs: dict[str, str] = {}
    versions: dict[str, str] = {}
    for node in flat:
        pack = _pack(node.node)
        if pack:
            packs[_class_of(node)] = pack
            if version := as_text(node.node["properties"].get("ver") or ""):
                versions.setdefault(pack, version)
    variants = tuple(_variants(flat, defs))
    return Converted(workflow, tuple(needs), packs, variants, versions)


def resolve_variants(
    workflow: Workflow,
    variants: Iterable[Input],
    seed: int,
    check: Callable[[], None] | None = None,
) -> None:
    """Choose one of each ``{a|b}`` in texts and remove comments, as the frontend does.

    Args:
        workflow: changed in place.
        variants: the inputs that may hold such a text.
        seed: the same seed makes the same choices.
        check: called for each text; raises if the job must end.

    Raises:
        InvalidWorkflow: such a text is too long.
    """
    generator = random.Random(seed)  # noqa: S311
    for variant in variants:
        if check is not None:
            check()
        inputs = workflow[variant.node_id]["inputs"]
        text = inputs.get(variant.name)
        if not isinstance(text, str):
            continue
        if is_too_long(text):
            raise InvalidWorkflow(
                f"the text in {variant.name} of node {variant.node_id} has {len(text):,} "
                "characters; a text with variants or comments may have at most "
                f"{MAX_VARIANT_TEXT:,}",
                [
                    {
                        "node_id": variant.node_id,
                        "input": variant.name,
                        "problem": "the text is too long",
                    }
                ],
            )
        inputs[variant.name] = choose_variants(text, generator)


def _variants(flat: list[FlatNode], defs: NodeDefs) -> Iterable[Input]:
    """Yield the inputs whose text may hold variants. Texts of hosts stay as they are."""
    for node in flat:
        declared = defs.get(_class_of(node))
        for spec in declared.inputs.values() if declared else ():
            if spec.options.get("dynamicPrompts") and not _is_from_outside(node.fed.get(spec.name)):
                yield Input(node.node_id, spec.name)


def _measure(flat: list[FlatNode], work: WorkLimit) -> None:
    """Count the values of the graph before they are copied for each node."""
    sizes: dict[int, tuple[int, int]] = {}
    for node in flat:
        key = id(node.node)
        if key not in sizes:
            parts = [
                node.node.get(part) for part in ("widgets_values", "widgets_values_named", "title")
            ]
            sizes[key] = _size(parts)
        steps, characters = sizes[key]
        work.count_steps(steps)
        work.count_characters(characters)
        for source in node.fed.values():
            if isinstance(source, Value):
                steps, characters = _size(source.value)
                work.count_steps(steps)
                work.count_characters(characters)


def _size(value: Any) -> tuple[int, int]:
    """Return the number of values within a value, and the number of characters."""
    count, characters, rest = 0, 0, [value]
    while rest:
        part = rest.pop()
        count += 1
        if isinstance(part, str):
            characters += len(part)
        elif isinstance(part, dict):
            characters += sum(map(len, part))
            rest += part.values()
        elif isinstance(part, list):
            rest += part
    return count, characters


def _distinct(holders: Iterable[Json]) -> list[Json]:
    """Return each object once: nodes of one subgraph share theirs."""
    return list({id(holder): holder for holder in holders}.values())


def _refuse_unreadable(flat: list[FlatNode]) -> None:
    """Reject nodes without a class: missing subgraphs, and group nodes of the old form."""
    if not flat:
        raise InvalidWorkflow("workflow has no node that runs: all are muted, bypassed or notes")
    problems = {}
    for node in flat:
        class_type = _class_of(node)
        if SUBGRAPH_ID.fullmatch(class_type):
            problems[node.node_id] = "its subgraph is not in the file"
        elif GROUP_NODE.match(class_type):
            problems[node.node_id] = (
                "it is a group node of the old kind; convert it to a subgraph in ComfyUI"
            )
        elif not class_type:
            problems[node.node_id] = "it has no type"
    _refuse(flat, problems)


def _refuse(flat: list[FlatNode], problems: Mapping[str, str]) -> None:
    """Raise an error that lists the nodes with problems; do nothing without problems."""
    details = [
        {
            "node_id": node.node_id,
            "title": brief(_title(node) or _class_of(node)),
            "class_type": brief(_class_of(node)),
            "pack": brief(_pack(node.node)),
            "problem": problems[node.node_id],
        }
        for node in flat
        if node.node_id in problems
    ]
    if details:
        first = details[0]
        raise InvalidWorkflow(
            f"node {first['node_id']} ({first['title']}) cannot be converted: {first['problem']}",
            details,
        )


class _Converter:
    """Converts flattened nodes to API format."""

    def __init__(self, defs: NodeDefs, work: WorkLimit) -> None:
        self._defs = defs
        self._work = work
        self._declarations = _Declarations(defs)

    def convert(self, flat: list[FlatNode]) -> Workflow:
        """Convert nodes with their links and values."""
        self._resolve_sources(flat)
        converted = self._with_widgets(flat)
        unreadable = {}
        for node in flat:
            if node.node_id not in converted:
                unreadable[node.node_id] = "its values have no readable form"
        _refuse(flat, unreadable)
        for node in flat:
            _feed(converted[node.node_id]["inputs"], node, self._defs.get(_class_of(node)))
        return converted

    def _resolve_sources(self, flat: list[FlatNode]) -> None:
        """Look up values that come from the widget of another node."""
        sources: dict[int, FlatNode] = {}
        for node in flat:
            for fed in node.fed.values():
                if isinstance(fed, Value) and fed.value is None and fed.source is not None:
                    inner = fed.source.node
                    sources.setdefault(id(inner), FlatNode(str(id(inner)), inner))
        if not sources:
            return
        converted = self._with_widgets(list(sources.values()))
        for node in flat:
            for name, fed in node.fed.items():
                if isinstance(fed, Value) and fed.value is None and fed.source is not None:
                    entry = converted.get(str(id(fed.source.node)))
                    value = None if entry is None else entry["inputs"].get(fed.source.name)
                    steps, characters = _size(value)
                    self._work.count_steps(steps)
                    self._work.count_characters(characters)
                    node.fed[name] = fed._replace(value=value)

    def _with_widgets(self, nodes: list[FlatNode]) -> Workflow:
        """Convert nodes with the values of their widgets alone; unreadable nodes are left out."""
        # The import takes 0.3 s. Graphs in API format do not need it.
        from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api

        converted: Workflow = {}
        for start in range(0, len(nodes), CHUNK):
            self._work.check()
            chunk = nodes[start : start + CHUNK]
            alone = [_alone(node, self._defs) for node in chunk]
            try:
                converted |= convert_ui_to_api(
                    {"nodes": alone, "links": []}, self._declarations.of(chunk)
                )
            except WorkflowConversionError as error:
                raise InvalidWorkflow(
                    f"workflow cannot be converted: {brief(error, 300)}"
                ) from error
        for node in nodes:
            entry = converted.get(node.node_id)
            if entry is not None:
                entry["class_type"] = _class_of(node)
                entry["inputs"] = with_names(
                    entry["inputs"], node.node, self._defs.get(_class_of(node))
                )
        return converted


def _feed(inputs: dict[str, Any], node: FlatNode, declared: NodeClass | None) -> None:
    """Set the inputs of a node that have a link or a value from elsewhere."""
    for name, source in node.fed.items():
        if isinstance(source, Link):
            inputs[name] = list(source)
        elif source.value is not None and _takes(declared, name):
            value = source.value if source.is_outside else _clamped(source.value, name, declared)
            inputs[name] = {"__value__": value} if isinstance(value, list) else value


def _clamped(value: Any, name: str, declared: NodeClass | None) -> Any:
    """Return a primitive's number within the range of the input, as the editor shows it."""
    spec = declared.inputs.get(name) if declared else None
    if spec is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    low, high = number(spec.options.get("min")), number(spec.options.get("max"))
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _takes(declared: NodeClass | None, name: str) -> bool:
    """Return whether a class has an input; ``format.codec`` belongs to its input ``format``."""
    return declared is None or name in declared.inputs or name.partition(".")[0] in declared.inputs


class _Declarations:
    """Declares classes to comfy-cli, each once however many nodes it has."""

    def __init__(self, defs: NodeDefs) -> None:
        self._defs = defs
        self._written: dict[tuple[str, bool], dict[str, Any]] = {}

    def of(self, nodes: Iterable[FlatNode]) -> dict[str, Any]:
        """Return, by node id, the declaration of the node's class, if this ComfyUI has it."""
        found = {}
        for node in nodes:
            declared = self._defs.get(_class_of(node))
            if declared is not None:
                with_sockets = has_socket_for_widgets(node.node, declared)
                key = (declared.name, with_sockets)
                if key not in self._written:
                    self._written[key] = as_object_info(declared, with_sockets)
                found[node.node_id] = self._written[key]
        return found


def _alone(node: FlatNode, defs: NodeDefs) -> dict[str, Any]:
    """Return a node for comfy-cli, without sockets; its id is the name of its class."""
    declared = defs.get(_class_of(node))
    values = widget_values(node.node, declared)
    if declared is None and isinstance(values, list):
        names = defs.replaced_widgets(_class_of(node))
        values = dict(zip(names, values, strict=False)) or values
    title = _title(node)
    if not title:
        title = _class_of(node) if declared is None else declared.display_name
    return {
        "id": node.node_id,
        "type": node.node_id,
        "title": title,
        "inputs": [
            {
                "name": as_text(entry.get("name")),
                "type": entry.get("type"),
                "link": None,
                "widget": entry["widget"],
            }
            for entry in node.node["inputs"]
            if entry.get("widget")
        ],
        "widgets_values": values,
    }


def _is_from_outside(fed: Link | Value | None) -> bool:
    """Return whether an input's value comes from the host of a subgraph."""
    return isinstance(fed, Value) and fed.is_outside


def _class_of(node: FlatNode) -> str:
    return str(node.node["type"])


def _title(node: FlatNode) -> str:
    title = node.node.get("title")
    return title if isinstance(title, str) else ""


def _models(holder: Any) -> list[dict[str, Any]]:
    """Return the model files that a file or a node's properties name."""
    entries = dicts(holder.get("models")) if isinstance(holder, dict) else []
    return [entry for entry in entries if entry.get("name") and entry.get("directory")]


def _url(model: Mapping[str, Any]) -> str | None:
    url = model.get("url")
    return url if isinstance(url, str) else None


def _pack(node: dict[str, Any]) -> str:
    """Return the node pack that a node names; empty for ComfyUI's own nodes."""
    pack = as_text(node["properties"].get("cnr_id") or node["properties"].get("aux_id") or "")
    return "" if pack == CORE_PACK else pack
