"""ComfyUI's refusals as findings, whichever version wrote them."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.comfyui.refusals import findings, refusal

WORKFLOW = {"x": {"class_type": "Nowhere", "inputs": {}, "_meta": {"title": "My node"}}}
UNKNOWN_CLASS = {
    "0.3.75": {
        "type": "invalid_prompt",
        "message": "Cannot execute because node Nowhere does not exist.",
        "details": "Node ID '#x'",
        "extra_info": {},
    },
    "0.33.0": {
        "type": "missing_node_type",
        "message": "Node 'My node' not found. The custom node may not be installed.",
        "details": "Node ID '#x'",
        "extra_info": {"node_id": "x", "class_type": "Nowhere", "node_title": "My node"},
    },
}


@pytest.mark.parametrize("error", UNKNOWN_CLASS.values(), ids=UNKNOWN_CLASS)
def test_an_unknown_class_has_one_type(error: dict[str, Any]) -> None:
    (finding,) = findings({"error": error, "node_errors": {}}, WORKFLOW)
    expected = {
        "type": "missing_node_type",
        "node_id": "x",
        "title": "My node",
        "class_type": "Nowhere",
    }
    assert expected.items() <= finding.items()
    assert "(node Nowhere x)" in str(refusal({"error": error}, WORKFLOW))


def test_a_circle_names_each_of_its_nodes() -> None:
    error = {
        "type": "dependency_cycle",
        "message": "Dependency cycle detected",
        "details": "x (Nowhere) -> x (Nowhere)",
        "extra_info": {"node_id": "x", "cycle_nodes": ["x"]},
    }
    node_errors = {"x": {"errors": [error], "dependent_outputs": [], "class_type": "Nowhere"}}
    (finding,) = findings(
        {"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": node_errors},
        WORKFLOW,
    )
    assert (finding["type"], finding["node_id"], finding["input"]) == (
        "dependency_cycle",
        "x",
        None,
    )


@pytest.mark.parametrize(
    "error", ["no prompt", None, {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}]
)
def test_a_refusal_without_a_node_is_kept(error: Any) -> None:
    (finding,) = findings({"error": error}, WORKFLOW)
    assert (finding["node_id"], finding["class_type"]) == (None, None)
    assert finding["problem"]


def test_a_refusal_names_the_clients_class() -> None:
    error = {"type": "value_not_in_list", "message": "no", "details": "", "extra_info": {}}
    answer = {"node_errors": {"x": {"errors": [error], "class_type": "ComfyWorkerOutput"}}}
    (finding,) = findings(answer, WORKFLOW)
    assert finding["class_type"] == "Nowhere"
