"""What the nodes of 95 graphs are for, against a table that was written by reading them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import found
from tests.official_templates import COMFYUI_0375

TABLE: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("roles.json").read_text(encoding="utf-8")
)
API_KEYS = ("prompt", "seed", "image")


@pytest.fixture(scope="module")
def all_defs() -> NodeDefs:
    return NodeDefs(COMFYUI_0375.object_info)


def table_graph(name: str) -> Workflow:
    loaded: Workflow = copy.deepcopy(COMFYUI_0375.exports[f"{name}.json"])
    return loaded


def ordered(entry: list[str] | str | None) -> list[str] | str | None:
    return sorted(entry) if isinstance(entry, list) else entry


def has_sampler(graph: Workflow) -> bool:
    return any(
        graph_node["class_type"].startswith(("KSampler", "SamplerCustom"))
        for graph_node in graph.values()
    )


@pytest.mark.parametrize("name", sorted(TABLE))
def test_roles_match_the_hand_written_answers(name: str, all_defs: NodeDefs) -> None:
    graph, truth = table_graph(name), TABLE[name]
    roles = find_roles(graph, all_defs)
    keys = truth.keys() if has_sampler(graph) else API_KEYS
    assert {key: found(roles, key) for key in keys} == {key: ordered(truth[key]) for key in keys}


def test_most_sampler_graphs_need_no_titles(all_defs: NodeDefs) -> None:
    assert sorted(TABLE) == sorted(name.removesuffix(".json") for name in COMFYUI_0375.exports)
    graphs = [table_graph(name) for name in TABLE]
    sampled = [find_roles(graph, all_defs) for graph in graphs if has_sampler(graph)]
    assert len(sampled) == 56
    keys = next(iter(TABLE.values())).keys()
    assert sum(keys.isdisjoint(roles.ambiguous) for roles in sampled) >= 51
