"""Classes that a newer ComfyUI lacks become those that it declares in their place, in both formats."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.replaced_classes import with_present_classes
from tests import graphs
from tests.editor_files import editor_file, node

SCALED: dict[str, Any] = {
    "new_node_id": "Resize",
    "old_widget_ids": ["method", "scale_by"],
    "input_mapping": [
        {"new_id": "input", "old_id": "image"},
        {"new_id": "kind", "set_value": "scale by multiplier"},
        {"new_id": "kind.multiplier", "old_id": "scale_by"},
        {"new_id": "method", "old_id": "method"},
    ],
    "output_mapping": [{"old_idx": 0, "new_idx": 1}],
}
RENAMED = {"new_node_id": "Loader", "old_widget_ids": None, "input_mapping": None}
# What ComfyUI takes first is not there.
LOST = {"new_node_id": "NeverThere", "input_mapping": [], "output_mapping": None}
DECLARED = {
    "Source": {"output": ["IMAGE"]},
    "Resize": {"output": ["INT", "IMAGE"]},
    "Loader": {"output": ["IMAGE"]},
    "Show": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True},
}
DEFS = NodeDefs(
    DECLARED,
    replacements={"OldScale": [SCALED], "OldLoader": [RENAMED], "OldLost": [LOST], "Show": [LOST]},
)
RESIZED = {
    "input": ["1", 0],
    "kind": "scale by multiplier",
    "kind.multiplier": 2.0,
    "method": "area",
}


def present(value: Any) -> Workflow:
    return with_present_classes(read_workflow(value, DEFS).workflow, DEFS)


def test_inputs_and_slots_follow_the_declaration() -> None:
    old = {
        "1": graphs.node("Source"),
        "2": graphs.node("OldScale", image=["1", 0], method="area", scale_by=2.0),
        "3": graphs.node("Show", images=["2", 0]),
    }
    changed = present(old)
    assert changed["2"]["class_type"] == "Resize"
    assert changed["2"]["inputs"] == RESIZED
    assert changed["3"]["inputs"] == {"images": ["2", 1]}
    assert old["2"]["class_type"] == "OldScale"


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": ("IMAGE", (1, 0))},
        {
            "image": ("IMAGE", (1, 0)),
            "=method": ("COMBO", None),
            "=scale_by": ("FLOAT", None),
        },
    ],
    ids=["values by position", "values by name"],
)
def test_files_of_the_editor_hold_replaced_classes(inputs: dict[str, Any]) -> None:
    file = editor_file(
        node(1, "Source", {}, "IMAGE"),
        node(2, "OldScale", inputs, "IMAGE", ["area", 2.0]),
        node(3, "Show", {"images": ("IMAGE", (2, 0))}),
    )
    changed = present(file)
    assert changed["2"]["class_type"] == "Resize"
    assert changed["2"]["inputs"] == RESIZED
    assert changed["3"]["inputs"] == {"images": ["2", 1]}


def test_a_replacement_without_inputs_has_none() -> None:
    """ComfyUI does the same."""
    changed = present({"1": graphs.node("OldLoader", file="a"), "2": graphs.node("Show")})
    assert (changed["1"]["class_type"], changed["1"]["inputs"]) == ("Loader", {})


@pytest.mark.parametrize("class_type", ["OldLost", "Show", "NobodyKnows"])
def test_other_classes_stay(class_type: str) -> None:
    workflow = {"1": graphs.node(class_type, images="x")}
    assert present(workflow)["1"]["class_type"] == class_type
    assert present(workflow)["1"]["inputs"] == {"images": "x"}
