"""What reaches an input where ComfyUI's own switches, expressions and text tools lie in between."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.values import UNKNOWN, Values
from tests.core_nodes import node

TARGET = Input("target", "value")


def received(source: list[Any], **nodes: dict[str, Any]) -> Any:
    workflow: Workflow = {**nodes, "target": node("Target", value=source)}
    return Values(workflow)(TARGET)


def expression(text: str, **names: Any) -> dict[str, Any]:
    values = {f"values.{name}": value for name, value in names.items()}
    return node("ComfyMathExpression", expression=text, **values)


@pytest.mark.parametrize(
    ("text", "names", "floating", "whole"),
    [
        ("a + b", {"a": 2, "b": 3}, 5.0, 5),
        ("a / 2", {"a": 1281}, 640.5, 640),
        ("max(((a + 15) // 16) * 16, 256)", {"a": 770}, 784.0, 784),
        ("floor(a * b + 1)", {"a": 5.0, "b": 16.0}, 81.0, 81),
        ("min(2048 / a, 2048 / b)", {"a": 1024, "b": 512}, 2.0, 2),
        ("a if a > 3 else b", {"a": 2, "b": 9}, 9.0, 9),
        ("-a % 8", {"a": 3}, 5.0, 5),
        ("2 ** a", {"a": 10}, 1024.0, 1024),
        ("round(a * 1.5)", {"a": 3}, 4.0, 4),
        ("a > 1 and b < 5", {"a": 2, "b": 3}, 1.0, 1),
        ("sum(values)", {"a": 2, "b": 3}, 5.0, 5),
        ("values[1] * 2", {"a": 2, "b": 3}, 6.0, 6),
    ],
)
def test_an_expression_is_computed(
    text: str, names: dict[str, Any], floating: float, whole: int
) -> None:
    assert received(["e", 0], e=expression(text, **names)) == floating
    assert received(["e", 1], e=expression(text, **names)) == whole
    assert received(["e", 2], e=expression(text, **names)) is bool(floating)


@pytest.mark.parametrize(
    "text",
    [
        "9 ** 9 ** 9",
        "a",
        "1 / 0",
        "__import__('os')",
        "(" * 300,
        "a.b",
        "[1] * 10 ** 9",
        "'x' * 10 ** 9",
        "",
        "log(-1)",
    ],
)
def test_other_expressions_are_not_known(text: str) -> None:
    assert received(["e", 0], e=expression(text)) is UNKNOWN


@pytest.mark.parametrize("class_type", ["ComfySwitchNode", "ComfySoftSwitchNode"])
def test_a_switch_gives_its_branch(class_type: str) -> None:
    for choice, value in ((True, 4), (False, 20)):
        switch = node(class_type, switch=["choice", 0], on_true=4, on_false=20)
        assert received(["s", 0], s=switch, choice=node("PrimitiveBoolean", value=choice)) == value
    assert (
        received(["s", 0], s=node(class_type, switch=["?", 0], on_true=4, on_false=20)) is UNKNOWN
    )


def test_a_soft_switch_gives_its_only_branch() -> None:
    assert received(["s", 0], s=node("ComfySoftSwitchNode", switch=False, on_true=4)) == 4


def test_a_numbered_switch_gives_its_branch() -> None:
    switch = node("ImpactSwitch", select=2, input1="a", input2="b", sel_mode=False)
    assert received(["s", 0], s=switch) == "b"


@pytest.mark.parametrize(
    ("shape", "megapixels", "multiple", "size"),
    [
        ("1:1 (Square)", 1, 8, (1024, 1024)),
        ("16:9 (Widescreen)", 0.9, 32, (1280, 736)),
        ("9:16 (Portrait Widescreen)", 1, 8, (768, 1368)),
    ],
)
def test_a_resolution_is_computed(
    shape: str, megapixels: float, multiple: int, size: tuple[int, int]
) -> None:
    chosen = node(
        "ResolutionSelector", aspect_ratio=shape, megapixels=megapixels, multiple=multiple
    )
    assert (received(["r", 0], r=chosen), received(["r", 1], r=chosen)) == size


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        (node("StringConcatenate", string_a="a cat", string_b="ink", delimiter=", "), "a cat, ink"),
        (
            node("StringReplace", string="draw {x} now", find="{x}", replace="a cat"),
            "draw a cat now",
        ),
        (
            node("StringFormat", f_string="{a}, {b}", **{"values.a": "a cat", "values.b": 3}),
            "a cat, 3",
        ),
        (node("JsonExtractString", json_string='{"steps": 12}', key="steps"), "12"),
        (node("PreviewAny", source=7), "7"),
        (node("CustomCombo", choice="fast", index=1), "fast"),
    ],
)
def test_text_tools_are_computed(tool: dict[str, Any], text: str) -> None:
    assert received(["t", 0], t=tool) == text


@pytest.mark.parametrize(
    "tool",
    [
        node("StringFormat", f_string="{a:>999999999}", **{"values.a": "x"}),
        node("StringFormat", f_string="{a.__class__}", **{"values.a": "x"}),
        node("StringReplace", string="a" * 100_000, find="a", replace="b" * 1000),
        node("JsonExtractString", json_string="[1", key="steps"),
        node("ComfyNumberConvert", value="many"),
        node("KSampler", seed=1, steps=2),
    ],
)
def test_what_only_a_run_tells_is_unknown(tool: dict[str, Any]) -> None:
    assert received(["t", 0], t=tool) is UNKNOWN


def test_texts_that_double_are_not_computed() -> None:
    nodes = {"0": node("PrimitiveString", value="x" * 1000)}
    for step in range(1, 60):
        nodes[str(step)] = node(
            "StringConcatenate", string_a=[str(step - 1), 0], string_b=[str(step - 1), 0]
        )
    assert received(["59", 0], **nodes) is UNKNOWN


def test_a_circle_is_unknown() -> None:
    assert received(["e", 0], e=expression("a + 1", a=["e", 0])) is UNKNOWN
    assert received(["p", 0], p=node("PrimitiveInt", value=["p", 0])) is UNKNOWN
