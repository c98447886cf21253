"""Through a switch, both ways: the pixels of the same wired by hand, and the numbers that the nodes received.

ComfyUI has a switch of its own since 0.17; an older one has nothing to test here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image, ImageDraw

from comfy_worker.workflow.edit.controlnet import ControlNetSpec, splice_controlnets
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.edit.read import read
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.values import Values
from tests.base_graphs import base_graph, node
from tests.comfyui.conftest import RealComfyUI
from tests.placeholders import CHECKPOINT, CONTROLNET, LORA, LORA_B, LORA_MODEL_ONLY

pytestmark = pytest.mark.comfyui

TURBO = node("LoraLoaderModelOnly", model=["1", 0], lora_name=LORA_MODEL_ONLY, strength_model=1.0)
SIDES_OF_SELECTOR: dict[str, Any] = {"values.a": ["60", 0], "values.b": ["60", 1]}
ASKED = {"steps": 3, "cfg": 2.5, "width": 128, "height": 64}


@pytest.fixture(autouse=True)
def has_switch(comfyui: RealComfyUI) -> None:
    if "ComfySwitchNode" not in comfyui.defs:
        pytest.skip("this ComfyUI has no switch")


def switch(on_true: Any, on_false: Any) -> dict[str, Any]:
    return node("ComfySwitchNode", switch=["50", 0], on_true=on_true, on_false=on_false)


def switched(is_on: bool) -> Workflow:
    """The model, the steps and the cfg behind switches, the size behind a selector and an expression."""
    graph = base_graph("KSampler", CHECKPOINT, model=("52", 0))
    graph["50"] = node("PrimitiveBoolean", value=is_on)
    graph["51"], graph["52"] = TURBO, switch(["51", 0], ["1", 0])
    graph["53"], graph["54"] = node("PrimitiveInt", value=1), node("PrimitiveInt", value=2)
    graph["5"]["inputs"] |= {"steps": ["55", 0], "cfg": ["56", 0]}
    graph["55"], graph["56"] = switch(["53", 0], ["54", 0]), switch(["57", 0], ["58", 0])
    graph["57"], graph["58"] = node("PrimitiveFloat", value=1.0), node("PrimitiveFloat", value=7.0)
    return graph


def with_selector(graph: Workflow) -> Workflow:
    selector = node("ResolutionSelector", aspect_ratio="1:1 (Square)", megapixels=0.1, multiple=64)
    width = node("ComfyMathExpression", expression="floor(a / 16) * 16", **{"values.a": ["60", 0]})
    latent = node("EmptyLatentImage", width=["61", 1], height=["60", 1], batch_size=1)
    return {**graph, "4": latent, "60": selector, "61": width}


def by_hand(is_on: bool, nodes: Mapping[str, Any], model: list[Any], clip: list[Any]) -> Workflow:
    """The graph without switches: what is on is wired straight."""
    graph = base_graph("KSampler", CHECKPOINT, clip=(clip[0], clip[1]))
    if is_on:
        graph["51"] = {**TURBO, "inputs": {**TURBO["inputs"], "model": model}}
        model = ["51", 0]
    graph["5"]["inputs"] |= {
        "model": model,
        "steps": 1 if is_on else 2,
        "cfg": 1.0 if is_on else 7.0,
    }
    return {**graph, **nodes}


def pixels(comfyui: RealComfyUI, workflow: Workflow) -> bytes:
    (picture,) = comfyui.images(workflow)
    return picture.tobytes()


@pytest.mark.parametrize("is_on", [True, False])
def test_a_lora_through_a_switch(comfyui: RealComfyUI, is_on: bool) -> None:
    loader = node(
        "LoraLoader",
        model=["1", 0],
        clip=["1", 1],
        lora_name=LORA,
        strength_model=0.8,
        strength_clip=0.8,
    )
    expected = pixels(comfyui, by_hand(is_on, {"20": loader}, ["20", 0], ["20", 1]))
    assert expected != pixels(comfyui, by_hand(is_on, {}, ["1", 0], ["1", 1]))
    graph = switched(is_on)
    spliced = splice_loras(
        graph, find_roles(graph, comfyui.defs), comfyui.defs, [LoraSpec(LORA, 0.8)]
    )
    assert pixels(comfyui, spliced) == expected


@pytest.mark.parametrize("is_on", [True, False])
def test_a_lora_above_the_model_of_one_branch(comfyui: RealComfyUI, is_on: bool) -> None:
    """Two loaders: the one that is on gets it."""
    graph = switched(is_on)
    graph["70"] = node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    graph["52"] = switch(["70", 0], ["1", 0])
    root = "70" if is_on else "1"
    spliced = splice_loras(
        graph, find_roles(graph, comfyui.defs), comfyui.defs, [LoraSpec(LORA_B, 0.8, 0.0)]
    )
    loader = node("LoraLoaderModelOnly", model=[root, 0], lora_name=LORA_B, strength_model=0.8)
    wired = {**by_hand(False, {"20": loader, "70": graph["70"]}, ["20", 0], ["1", 1])}
    wired["5"]["inputs"] |= {"steps": 1 if is_on else 2, "cfg": 1.0 if is_on else 7.0}
    assert pixels(comfyui, spliced) == pixels(comfyui, wired)


@pytest.mark.parametrize("is_on", [True, False])
def test_a_controlnet_below_a_switch(comfyui: RealComfyUI, is_on: bool) -> None:
    picture = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(picture).rectangle((16, 16, 48, 48), outline="white", width=4)
    picture.save(comfyui.input_dir / "switch-map.png")
    graph = switched(is_on)
    graph["2"]["inputs"]["text"] = "a cat in a garden"
    graph["71"] = node("CLIPTextEncode", clip=["1", 1], text="a dog")
    graph["72"] = switch(["71", 0], ["2", 0])
    graph["5"]["inputs"]["positive"] = ["72", 0]
    spec = ControlNetSpec(image="switch-map.png", model=CONTROLNET, strength=0.9)
    spliced = splice_controlnets(graph, find_roles(graph, comfyui.defs), comfyui.defs, [spec])
    applied = node(
        "ControlNetApplyAdvanced",
        positive=["71" if is_on else "2", 0],
        negative=["3", 0],
        control_net=["21", 0],
        image=["20", 0],
        strength=0.9,
        start_percent=0.0,
        end_percent=1.0,
    )
    nodes = {
        "20": node("LoadImage", image="switch-map.png"),
        "21": node("ControlNetLoader", control_net_name=CONTROLNET),
        "22": applied,
        "71": graph["71"],
    }
    wired = by_hand(is_on, nodes, ["1", 0], ["1", 1])
    wired["5"]["inputs"] |= {"positive": ["22", 0], "negative": ["22", 1]}
    assert pixels(comfyui, spliced) == pixels(comfyui, wired)


@pytest.mark.parametrize("is_on", [True, False])
def test_filled_and_hand_written_pictures_are_equal(comfyui: RealComfyUI, is_on: bool) -> None:
    graph = with_selector(switched(is_on))
    roles = find_roles(graph, comfyui.defs)
    result = fill(graph, roles, comfyui.defs, ASKED)
    assert read(result, roles, before=graph).items() >= ASKED.items()
    wired = by_hand(is_on, {}, ["1", 0], ["1", 1])
    wired["4"]["inputs"] |= {"width": 128, "height": 64}
    wired["5"]["inputs"] |= {"steps": 3, "cfg": 2.5}
    assert pixels(comfyui, result) == pixels(comfyui, wired)


def test_other_readers_of_a_selector_follow(comfyui: RealComfyUI) -> None:
    """An image beside the latent, and a text that shows a computed side."""
    graph = with_selector(switched(True))
    graph["80"] = node(
        "EmptyImage", width=["60", 0], height=["60", 1], batch_size=1, color=0x00FF00
    )
    graph["81"] = node("SaveImage", images=["80", 0], filename_prefix="a")
    graph["82"] = node("ComfyMathExpression", expression="a + b", **SIDES_OF_SELECTOR)
    graph["83"] = node("PreviewAny", source=["82", 1])
    filled = fill(graph, find_roles(graph, comfyui.defs), comfyui.defs, ASKED)
    shown = filled.pop("83")
    assert [picture.size for picture in comfyui.images(filled)] == [(128, 64), (128, 64)]
    assert comfyui.texts({**filled, "83": shown})["83"] == "192"
    only_width = fill(graph, find_roles(graph, comfyui.defs), comfyui.defs, {"width": 128})
    height = Values(graph)(Input("4", "height"))
    del only_width["83"]
    assert {picture.size for picture in comfyui.images(only_width)} == {(128, height)}


def test_values_are_computed_as_comfyui_computes_them(comfyui: RealComfyUI) -> None:
    expressions = [
        "a / 2",
        "max(((a + 15) // 16) * 16, 256)",
        "floor(a * b + 1)",
        "a if a > b else -b % 8",
    ]
    graph: Workflow = {}
    for number, text in enumerate(expressions):
        names = {"values.a": 1281, "values.b": 16.5}
        graph[f"1{number}"] = node("ComfyMathExpression", expression=text, **names)
        for slot in (0, 1):
            graph[f"2{number}{slot}"] = node("PreviewAny", source=[f"1{number}", slot])
    for number, ratio in enumerate(
        ["16:9 (Widescreen)", "2:3 (Portrait Photo)", "21:9 (Ultrawide)"]
    ):
        graph[f"3{number}"] = node(
            "ResolutionSelector", aspect_ratio=ratio, megapixels=0.9, multiple=32
        )
        for slot in (0, 1):
            graph[f"4{number}{slot}"] = node("PreviewAny", source=[f"3{number}", slot])
    graph["50"] = node("StringReplace", string="draw {x} {x}", find="{x}", replace="it")
    graph["51"] = node("PreviewAny", source=["50", 0])
    values = Values(graph)
    shown = comfyui.texts(graph)
    assert len(shown) == 15
    for node_id, text in shown.items():
        computed = values(Input(node_id, "source"))
        assert text in (computed, str(computed), json.dumps(computed))
