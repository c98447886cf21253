"""Converting a file costs no more than its size, whatever it holds, and hears the end of its job."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from comfy_worker.errors import InvalidWorkflow, JobCancelled
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.convert.work_limit import CHECK_EVERY
from comfy_worker.workflow.node_defs import NodeDefs
from tests.editor_files import Node, editor_file, node, subgraph

PART = "11111111-2222-3333-4444-555555555555"
DEFS = NodeDefs({})


def hosts(count: int, *inner: Node, links: int = 0) -> dict[str, Any]:
    """Nodes that all stand for one subgraph, with links of no use in it."""
    part = subgraph(PART, {}, {}, *inner)
    part["links"] = [[number, 1, 0, 2, 0, "X"] for number in range(links)]
    return editor_file(*(node(number, PART) for number in range(1, count + 1)), subgraphs=[part])


def bypassed_chain(length: int) -> dict[str, Any]:
    """Bypassed nodes in a row, and behind them as many nodes, each of which wants another type."""
    row = [node(i, "X", {"a": ("*", (i - 1, 0))}, "*", mode=4) for i in range(2, length)]
    ends = [node(length + i, "Y", {"a": (f"T{i}", (length - 1, 0))}) for i in range(length)]
    return editor_file(node(1, "Z", {}, "*"), *row, *ends)


def with_inputs(count: int) -> Node:
    return node(1, "X", {f"input {number}": ("T", None) for number in range(count)})


def test_reroutes_in_a_row_are_linear() -> None:
    reroutes = [node(i, "Reroute", {"": ("*", (i - 1, 0))}, "*") for i in range(2, 4900)]
    file = editor_file(node(1, "X", {}, "*"), *reroutes, node(4900, "Y", {"a": ("*", (4899, 0))}))
    began = time.process_time()
    assert read_workflow(file, DEFS).workflow["4900"]["inputs"] == {"a": ["1", 0]}
    assert time.process_time() - began < 10


def test_hosts_share_the_links_of_their_subgraph() -> None:
    file = hosts(2400, node(1, "X"), links=20_000)
    tracemalloc.start()
    began = time.process_time()
    try:
        assert len(read_workflow(file, DEFS).workflow) == 2400
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    "file",
    [
        hosts(2400, node(1, "X", widgets=["x" * 100_000])),
        hosts(2400, node(1, "X", widgets=[[1] * 10_000])),
        hosts(2400, with_inputs(10_000)),
        bypassed_chain(2400),
    ],
    ids=["text", "values", "inputs", "types behind bypassed nodes"],
)
def test_what_would_grow_is_refused_soon(file: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(InvalidWorkflow, match="workflow becomes"):
        read_workflow(file, DEFS)
    assert time.process_time() - began < 30


def test_a_text_handed_to_many_hosts_is_refused() -> None:
    text = node(1, "X", {"=text": ("STRING", (-10, 0))}, widgets=["x" * 100_000], mode=2)
    part = subgraph(PART, {"text": "STRING"}, {}, text, node(2, "Y", {"a": ("STRING", (-10, 0))}))
    text_hosts = [node(number, PART, {"=text": ("STRING", None)}) for number in range(10, 810)]
    with pytest.raises(InvalidWorkflow, match="workflow becomes longer"):
        read_workflow(editor_file(*text_hosts, subgraphs=[part]), DEFS)


def test_cancelling_ends_a_job_during_a_read() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise JobCancelled("the job was cancelled")

    with pytest.raises(JobCancelled):
        read_workflow(hosts(2 * CHECK_EVERY, node(1, "X")), DEFS, check)


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "key", ["id", "type", "title", "inputs", "outputs", "properties", "widgets_values", "mode"]
)
def test_deep_nesting_is_refused(key: str) -> None:
    with pytest.raises(InvalidWorkflow, match="nested more than"):
        read_workflow({**editor_file(), "nodes": [{**node(1, "X"), key: nest(900)}]}, DEFS)


def test_long_ids_are_refused_in_a_short_sentence() -> None:
    with pytest.raises(InvalidWorkflow, match="id is longer than 200 characters") as caught:
        read_workflow(editor_file({**node(1, "X"), "id": "5" * 100_000}), DEFS)
    assert len(str(caught.value)) < 200
    with pytest.raises(InvalidWorkflow, match="too many digits"):
        read_workflow(editor_file({**node(1, "X"), "id": 10**400}), DEFS)


def test_errors_of_nodes_quote_no_long_words() -> None:
    file = editor_file(
        {**node(1, PART), "title": "t" * 10**6}, {**node(2, "workflow>" + "c" * 10**6)}
    )
    with pytest.raises(InvalidWorkflow) as caught:
        read_workflow(file, DEFS)
    assert len(str(caught.value.to_result())) < 2000
