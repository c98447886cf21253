"""Declarations of today's kinds are read as ComfyUI reads them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from comfy_worker.workflow import node_defs
from comfy_worker.workflow.graph import Input, Link
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from tests.base_graphs import node

SWITCH = {"template": {"template_id": "switch", "allowed_types": "*"}}
NUMBER = {"input": {"required": {"value": ["FLOAT,INT", {}]}}, "names": ["a", "b", "c"], "min": 1}
DEPTH = {"required": {"bit_depth": ["COMBO", {"options": ["8-bit"]}], "file": ["STRING", {}]}}
FORMAT = {"options": [{"key": "png", "inputs": DEPTH}, {"key": "exr", "inputs": {"required": {}}}]}
INNER = {
    "options": [{"key": "on", "inputs": {"required": {"codec": ["COMFY_DYNAMICCOMBO_V3", FORMAT]}}}]
}


def declared(required: dict[str, Any], *outputs: str, **more: Any) -> dict[str, Any]:
    return {"input": {"required": required}, "output": list(outputs), **more}


DEFS = NodeDefs(
    {
        "Image": declared({}, "IMAGE"),
        "Switch": declared(
            {
                "switch": ["BOOLEAN"],
                "off": ["COMFY_MATCHTYPE_V3", SWITCH],
                "on": ["COMFY_MATCHTYPE_V3", SWITCH],
            },
            "COMFY_MATCHTYPE_V3",
            output_matchtypes=["switch"],
        ),
        "Math": declared({"values": ["COMFY_AUTOGROW_V3", {"template": NUMBER}]}, "FLOAT"),
        "Batch": declared(
            {
                "images": [
                    "COMFY_AUTOGROW_V3",
                    {
                        "template": {
                            "input": {"required": {"i": ["IMAGE"]}},
                            "prefix": "image",
                            "min": 2,
                            "max": 9,
                        }
                    },
                ]
            }
        ),
        "Save": declared({"format": ["COMFY_DYNAMICCOMBO_V3", FORMAT]}, is_input_list=True),
        "Nested": declared({"outer": ["COMFY_DYNAMICCOMBO_V3", INNER]}),
        "Slot": declared({"s": ["COMFY_DYNAMICSLOT_V3", {"slotType": "IMAGE", "inputs": DEPTH}]}),
        "Group": declared({"g": ["COMFY_DYNAMICGROUP_V3", {"template": {"inputs": DEPTH}}]}),
        "Later": declared({"x": ["COMFY_SOMETHING_V9", {}]}, "COMFY_SOMETHING_V9"),
    }
)


def keys(class_type: str, **values: Any) -> dict[str, bool]:
    values = {name.replace("__", "."): value for name, value in values.items()}
    return {key: spec.required for key, spec in DEFS[class_type].live_inputs(values).items()}


def test_inputs_grow_with_the_values_given() -> None:
    assert keys("Math") == {"values.a": True}
    assert keys("Math", values__c=["1", 0], values__zz=1) == {"values.a": True, "values.c": False}
    assert keys("Batch", images__image3=["1", 0]) == {
        "images.image0": True,
        "images.image1": True,
        "images.image3": False,
    }


def test_a_choice_brings_its_own_inputs() -> None:
    assert keys("Save", format="png") == {
        "format": True,
        "format.bit_depth": True,
        "format.file": True,
    }
    assert keys("Save", format="exr") == {"format": True}
    assert keys("Save", format={"a": 1}) == {"format": True}
    assert keys("Nested", outer="on", outer__codec="png") == {
        "outer": True,
        "outer.codec": True,
        "outer.codec.bit_depth": True,
        "outer.codec.file": True,
    }
    spec = DEFS["Save"].spec("format.bit_depth", {"format": "png"})
    assert spec is not None
    assert spec.choices == ("8-bit",)
    assert DEFS["Save"].spec("format.bit_depth", {"format": "exr"}) is None
    assert DEFS["Save"].inputs["format"].choices == ("png", "exr")
    assert DEFS["Save"].is_list_input


def test_slots_and_groups_bring_inputs() -> None:
    assert keys("Slot") == {"s": True}
    assert keys("Slot", s=["1", 0]) == {"s": True, "s.bit_depth": True, "s.file": True}
    assert keys("Group", g__0__file="x", g__x__file="x") == {"g.0.file": False}


@pytest.mark.parametrize(
    ("declared_type", "widget", "takes"),
    [
        ("FLOAT,INT", "FLOAT", {"FLOAT", "INT"}),
        ("IMAGE, MASK", None, {"IMAGE", "MASK"}),
        ("COMFY_DYNAMICCOMBO_V3", "COMBO", {"COMBO"}),
        ("COMFY_SOMETHING_V9", None, {"*"}),
        ("COLOR", "COLOR", {"COLOR"}),
    ],
)
def test_types_are_read_one_by_one(declared_type: str, widget: str | None, takes: set[str]) -> None:
    spec = InputSpec.read("x", [declared_type, {}], required=True)
    assert (spec.widget_type, spec.types) == (widget, takes)


def test_unknown_kinds_take_anything_and_are_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_defs, "_logged_kinds", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            later = NodeDefs(
                {"Later": declared({"x": ["COMFY_SOMETHING_V9"]}, "COMFY_SOMETHING_V9")}
            )["Later"]
    assert later.outputs == ("*",)
    assert caplog.text.count("COMFY_SOMETHING_V9") == 1


def test_a_switch_gives_what_its_branches_give() -> None:
    chain = {
        str(n): node("Switch", switch=True, on=[str(n - 1), 0], off=[str(n - 1), 0])
        for n in range(1, 2000)
    }
    graph = TypedWorkflow({"0": node("Image"), **chain}, DEFS)
    assert graph.output_type(Link("1999", 0)) == "IMAGE"
    assert graph.type_of(Input("1999", "on")) == "IMAGE"
    ring = {"a": node("Switch", on=["b", 0]), "b": node("Switch", on=["a", 0], off=["gone", 0])}
    assert TypedWorkflow(ring, DEFS).output_type(Link("a", 0)) == "*"
