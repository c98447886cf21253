"""Flattens a UI-format workflow: finds the nodes that run, and what feeds their inputs.

Subgraphs, reroutes, primitives, Set and Get nodes, links of Use Everywhere, muted and bypassed
nodes and notes are resolved as ComfyUI's frontend resolves them in an export (1.49.6,
``executionUtil.ts`` and ``ExecutableNodeDTO.ts``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.active_graph import ActiveGraph, Value
from comfy_worker.workflow.convert.definitions import Definition, Subgraphs
from comfy_worker.workflow.convert.link_resolver import LinkResolver
from comfy_worker.workflow.convert.ui_format import Json, as_text, id_of, nesting_of
from comfy_worker.workflow.convert.unique_ids import with_unique_ids
from comfy_worker.workflow.convert.work_limit import WorkLimit
from comfy_worker.workflow.graph import Link
from comfy_worker.workflow.parse import MAX_NESTING, MAX_NODES

__all__ = ["FlatNode", "flatten"]

# Values may be nested as deep as in an API-format graph; the file adds its own lists and objects.
MAX_FILE_NESTING = MAX_NESTING + 10


@dataclass(frozen=True)
class FlatNode:
    """One node of the export.

    Attributes:
        node_id: ``5``, or ``2:5`` for node 5 in the subgraph of host 2.
        node: the node in the file; hosts of the same subgraph share it.
        fed: by name, what feeds an input. Other inputs are left out.
    """

    node_id: str
    node: Json
    fed: dict[str, Link | Value] = field(default_factory=dict)


def flatten(file: Json, work: WorkLimit, *, unique_ids: bool = True) -> list[FlatNode]:
    """Flatten a file.

    Args:
        file: a workflow in UI format.
        work: limits the work, and ends it if the job must end.
        unique_ids: whether nodes of subgraphs get new ids if an id is taken. Frontends that do so
            ignore a primitive that feeds a subgraph from outside.

    Returns:
        The nodes that run, in the order of the file; nodes of a subgraph in place of its host.

    Raises:
        InvalidWorkflow: a subgraph contains itself, links form a circle, or the file is too large.
    """
    if nesting_of(file) > MAX_FILE_NESTING:
        raise InvalidWorkflow(
            f"workflow holds lists and objects that are nested more than {MAX_FILE_NESTING} deep; "
            "save it again in ComfyUI"
        )
    if unique_ids:
        file = with_unique_ids(file)
    outermost = ActiveGraph(Definition(file), Subgraphs(file, work))
    outermost.primitives_enter = not unique_ids
    links = LinkResolver(work)
    flat = []
    for count, (graph, node) in enumerate(outermost.nodes_within()):
        if count == MAX_NODES:
            raise InvalidWorkflow(
                f"workflow has more than {MAX_NODES} nodes, including those in its subgraphs"
            )
        work.count_steps(1 + len(node["inputs"]))
        if graph.runs(node):
            flat.append(_flat_node(graph, node, links))
    return flat


def _flat_node(graph: ActiveGraph, node: Json, links: LinkResolver) -> FlatNode:
    """Return one node of the export, with what feeds its inputs."""
    flat_node = FlatNode(graph.prefix + id_of(node), node)
    for slot, entry in enumerate(node["inputs"]):
        source = links.source_of(graph, node, slot)
        name = as_text(entry.get("name"))
        if source is None:
            if not entry.get("widget"):
                graph.refuse_lost_broadcast(flat_node.node_id, entry)
        elif isinstance(source, Link) or source.is_outside or entry.get("widget"):
            # A primitive sets widgets only; a host's value goes to sockets too.
            flat_node.fed[name] = _without_itself(source, node, name)
    for name, value in graph.values_for(id_of(node)).items():
        flat_node.fed.setdefault(name, Value(value, is_outside=True))
    return flat_node


def _without_itself(source: Link | Value, node: Json, name: str) -> Link | Value:
    """Remove a source that is the input's own widget."""
    if isinstance(source, Link) or source.source is None:
        return source
    is_own = source.source.node is node and source.source.name == name
    return source._replace(source=None) if is_own else source
