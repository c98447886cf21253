"""Links are read as ComfyUI's executor reads them, and broken ones are told before a prompt is queued."""

from __future__ import annotations

import time
from typing import Any

import pytest

from comfy_worker.errors import InvalidWorkflow, NodeNotInstalled
from comfy_worker.workflow.check.links import LinkWalk, link_faults, with_plain_links, without_idle
from comfy_worker.workflow.check.preflight import MAX_FINDINGS, broken_links, check, refusal
from comfy_worker.workflow.graph import Link, Workflow, ancestors, as_link
from comfy_worker.workflow.model_files import CheckContext
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import OBJECT_INFO, node

DEFS = NodeDefs(
    {
        **OBJECT_INFO,
        "PreviewAny": {"input": {"required": {"source": ["*", {}]}}, "output_node": True},
        "AnySwitch": {
            "input": {"required": {}, "optional": {}},
            "output": ["*"],
            "output_name": ["any"],
        },
        "EmptyImage": {
            "input": {"required": {"width": ["INT", {}]}},
            "output": ["IMAGE"],
            "output_name": ["IMAGE"],
        },
    }
)
IMAGE = node("EmptyImage", width=64)


def preview(value: Any, **more: Any) -> Workflow:
    """An output with one input, and an image node that it may be linked to."""
    return {"1": node("PreviewAny", source=value, **more), "3": IMAGE}


def faults(workflow: Workflow) -> list[tuple[str, str, str]]:
    return [
        (fault.input.node_id, fault.input.name, fault.type) for fault in link_faults(workflow, DEFS)
    ]


@pytest.mark.parametrize(
    ("value", "link"),
    [
        (["3", 0], Link("3", 0)),
        (["3", False], Link("3", 0)),
        (["3", True], Link("3", 1)),
        (["3", 2.0], Link("3", 2)),
        (["3", -9], Link("3", -9)),
    ],
)
def test_comfyui_links_are_links(value: Any, link: Link) -> None:
    assert as_link(value) == link


@pytest.mark.parametrize("slot", [0.5, 1e300, -0.25, float("inf"), float("nan")])
def test_odd_slots_lead_to_their_node(slot: float) -> None:
    assert list(ancestors(preview(["3", slot]), "1")) == ["3"]


@pytest.mark.parametrize(
    "value", [[3, 0], ["3", "0"], ["3"], ["3", 0, 0], "3", {"3": 0}, ["3", None], [None, 0]]
)
def test_lists_comfyui_ignores_are_literals(value: Any) -> None:
    assert as_link(value) is None


@pytest.mark.parametrize(
    "value",
    [
        {"__value__": ["3", 0]},
        {"__value__": ["77", 0]},
        {"__value__": ["3", 1e300]},
        {"__value__": ["3", False], "more": 1},
        {"__value__": {"__value__": {"__value__": ["3", 0.5]}}},
    ],
)
@pytest.mark.parametrize("name", ["source", "undeclared"])
def test_wrapped_links_are_refused(name: str, value: Any) -> None:
    workflow = preview("a", **{name: value}) if name != "source" else preview(value)
    assert faults(workflow) == [("1", name, "hidden_link")]
    assert f"{name} hides a link" in str(refusal(broken_links(workflow, DEFS)))


def test_wrapped_lists_stay() -> None:
    assert faults(preview({"__value__": [1, 2]})) == []
    assert faults(preview({"__value__": ["a", "b"]})) == []


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"gone": ["77", 0]}, "dangling_link"),
        ({"gone": ["77", False]}, "dangling_link"),
        ({"gone": ["77", 0.5]}, "dangling_link"),
        ({"": ["77", 0]}, "dangling_link"),
        ({"gone": ["1", 0]}, "cycle"),
        ({"gone": ["3", 99]}, "bad_output_slot"),
        ({"gone": ["3", -2]}, "bad_output_slot"),
        ({"gone": ["3", 0.5]}, "bad_output_slot"),
        ({"gone": ["3", 1e300]}, "bad_output_slot"),
    ],
)
def test_undeclared_links_are_checked(more: dict[str, Any], fault: str) -> None:
    workflow = preview("a", **more)
    (finding,) = check(workflow, DEFS, CheckContext()).findings
    assert (finding["node_id"], finding["input"], finding["type"]) == ("1", next(iter(more)), fault)


def test_dangling_links_name_the_missing_node() -> None:
    error = refusal(check(preview("a", gone=["77", 0]), DEFS, CheckContext()).findings)
    assert isinstance(error, InvalidWorkflow)
    assert "node 1 (PreviewAny): gone is linked to node '77', which is not there" in str(error)


def test_circles_by_undeclared_inputs_are_found() -> None:
    workflow = {
        **preview(["4", 0]),
        "4": node("AnySwitch", a=["5", 0]),
        "5": node("AnySwitch", b=["4", 0]),
    }
    assert faults(workflow) == [("5", "b", "cycle")]


def test_missing_models_behind_a_switch_are_found() -> None:
    switch = {
        "4": node("AnySwitch", a=["5", 0]),
        "5": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
    }
    (finding,) = check({**preview(["4", 0]), **switch}, DEFS, CheckContext()).findings
    assert (finding["node_id"], finding["type"]) == ("5", "missing_model")


def test_idle_nodes_are_not_queued() -> None:
    idle = {"8": node("EmptyImage", width=["77", 0]), "9": node("EmptyImage", width=["9", 0])}
    workflow = {**preview(["3", 0]), **idle}
    assert faults(workflow) == []
    assert list(without_idle(workflow, DEFS)) == ["1", "3"]


def test_hidden_links_of_idle_nodes_are_refused() -> None:
    workflow = {**preview(["3", 0]), "8": node("EmptyImage", width={"__value__": ["3", 0]})}
    assert faults(workflow) == [("8", "width", "hidden_link")]


def test_plain_links_keep_what_is_not_plain() -> None:
    plain = with_plain_links(
        {**preview([3, 0], a=["3", False], b=["3", 0.5], c=[77, 0], d=[True, 0])}
    )
    expected = {"source": ["3", 0], "a": ["3", 0], "b": ["3", 0.5], "c": [77, 0], "d": [True, 0]}
    assert plain["1"]["inputs"] == expected


def test_long_chains_are_walked_without_recursion() -> None:
    chain = {str(i): node("AnySwitch", a=[str(i - 1), 0]) for i in range(1, 5000)}
    walk = LinkWalk({**chain, "0": IMAGE, "o": node("PreviewAny", source=["4999", 0])}, DEFS)
    assert len(walk.live) == 5001


def test_many_findings_are_counted() -> None:
    workflow = {str(i): node(f"NoSuchNode{i}" + "x" * 900) for i in range(4990)}
    began = time.process_time()
    findings = check(workflow, DEFS, CheckContext()).findings
    assert time.process_time() - began < 5
    assert len(findings) == MAX_FINDINGS + 1
    assert findings[-1]["type"] == "more"
    error = refusal(findings)
    assert isinstance(error, NodeNotInstalled)
    assert f"({4990 - MAX_FINDINGS} further problems were found)" in str(error)
    assert len(str(error.details)) < 150_000


@pytest.mark.parametrize("class_type", ["N" * 5_000_000, "é" * 100_000])
def test_long_names_are_cut(class_type: str) -> None:
    long_title = {"class_type": class_type, "inputs": {}, "_meta": {"title": "t" * 1_000_000}}
    error = refusal(check({"1": long_title}, DEFS, CheckContext()).findings)
    assert len(str(error)) + len(str(error.details)) < 5_000


def test_many_wrong_choices_take_linear_time() -> None:
    loader = {
        str(i): node("CheckpointLoaderSimple", ckpt_name=f"{i}.safetensors") for i in range(2000)
    }
    outputs = {f"o{i}": node("PreviewAny", source=[str(i), 0]) for i in range(2000)}
    began = time.process_time()
    check({**loader, **outputs}, DEFS, CheckContext())
    assert time.process_time() - began < 5
