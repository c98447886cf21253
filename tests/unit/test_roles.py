"""What the nodes of 95 graphs are for, against a table that was written by reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_common.paths import REPO
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import found

TABLE: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("roles.json").read_text(encoding="utf-8"))
GRAPHS = REPO.parent / "shared" / "ui_to_api"
API_KEYS = ("prompt", "seed", "image")


@pytest.fixture(scope="module")
def all_defs() -> NodeDefs:
    if not GRAPHS.is_dir():
        pytest.skip(f"{GRAPHS} is absent: the table's graphs lie there")
    return NodeDefs(json.loads((GRAPHS / "object_info.json").read_text(encoding="utf-8")))


def table_graph(name: str) -> Workflow:
    loaded: Workflow = json.loads((GRAPHS / "expected" / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def ordered(entry: list[str] | str | None) -> list[str] | str | None:
    return sorted(entry) if isinstance(entry, list) else entry


def has_sampler(graph: Workflow) -> bool:
    return any(one["class_type"].startswith(("KSampler", "SamplerCustom")) for one in graph.values())


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_roles_of_a_graph_are_those_that_a_reader_wrote_down(name: str, all_defs: NodeDefs) -> None:
    graph, truth = table_graph(name), TABLE[name]
    roles = find_roles(graph, all_defs)
    keys = truth.keys() if has_sampler(graph) else API_KEYS
    assert {key: found(roles, key) for key in keys} == {key: ordered(truth[key]) for key in keys}


def test_most_graphs_with_a_sampler_are_decided_without_a_title(all_defs: NodeDefs) -> None:
    assert sorted(TABLE) == sorted(path.stem for path in (GRAPHS / "expected").glob("*.json"))
    graphs = [table_graph(name) for name in TABLE]
    sampled = [find_roles(graph, all_defs) for graph in graphs if has_sampler(graph)]
    assert len(sampled) == 56
    keys = next(iter(TABLE.values())).keys()
    assert sum(keys.isdisjoint(roles.ambiguous) for roles in sampled) >= 51
