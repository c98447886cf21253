"""LoRAs for one of two models give the very pixels of a graph that is wired by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.workflow.graph import Workflow
from tests.base_graphs import base_graph, node
from tests.comfyui.conftest import RealComfyUI
from tests.placeholders import CHECKPOINT, LORA, LORA_B

pytestmark = pytest.mark.comfyui

HIGH, LOW = "pair-high.safetensors", "pair-low.safetensors"


def two_stages(**loras: str) -> Workflow:
    """A graph of two stages, each with a model of its own and, by hand, a LoRA behind it."""
    graph = base_graph("KSamplerAdvanced", CHECKPOINT)
    graph["20"] = node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    graph["20"]["_meta"] = {"title": "the second model"}
    graph["6"]["inputs"]["model"] = ["20", 0]
    if "high" in loras:
        graph["30"] = node(
            "LoraLoader",
            model=["1", 0],
            clip=["1", 1],
            lora_name=loras["high"],
            strength_model=0.8,
            strength_clip=0.8,
        )
        graph["5"]["inputs"]["model"] = ["30", 0]
        graph["2"]["inputs"]["clip"] = graph["3"]["inputs"]["clip"] = ["30", 1]
    if "low" in loras:
        graph["31"] = node(
            "LoraLoaderModelOnly", model=["20", 0], lora_name=loras["low"], strength_model=0.8
        )
        graph["6"]["inputs"]["model"] = ["31", 0]
    return graph


def lora(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "strength": 0.8, **more}


# The LoRAs of a request, and where a hand would put them. One for the second model alone changes no
# text encoder: that belongs to the first model too, and is therefore left out.
REQUESTS: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "by target": (
        [lora(LOW, target="low", strength_clip=0), lora(HIGH, target="high")],
        {"high": HIGH, "low": LOW},
    ),
    "by name": (
        [lora("pair-low", strength_clip=0), lora("pair-high")],
        {"high": HIGH, "low": LOW},
    ),
    "turned by target": (
        [lora(LOW, target="base"), lora(HIGH, target="refiner", strength_clip=0)],
        {"high": LOW, "low": HIGH},
    ),
    "by title": ([lora(HIGH, target="the second model", strength_clip=0)], {"low": HIGH}),
    "by sampler": ([lora(HIGH, target="6", strength_clip=0)], {"low": HIGH}),
    "by loader": ([lora(HIGH, target="1")], {"high": HIGH}),
    "single": ([lora(HIGH)], {"high": HIGH, "low": HIGH}),
}


@pytest.fixture(scope="module", autouse=True)
def pair(comfyui: RealComfyUI, model_root: Path) -> Iterator[None]:
    """Two LoRAs whose names make them a pair."""
    names = {HIGH: LORA, LOW: LORA_B}
    for name, source in names.items():
        shutil.copy(model_root / "loras" / source, model_root / "loras" / name)
    comfyui.running.refresh()
    yield
    for name in names:
        (model_root / "loras" / name).unlink()
    comfyui.running.refresh()


def pixels(comfyui: RealComfyUI, workflow: Workflow) -> bytes:
    (picture,) = comfyui.images(workflow)
    return picture.tobytes()


@pytest.fixture(scope="module")
def by_hand(comfyui: RealComfyUI, pair: None) -> dict[str, bytes]:
    """The pictures of the graphs wired by hand, and of the graph without LoRAs."""
    pictures = {"plain": pixels(comfyui, two_stages())}
    for name, (_, hand) in REQUESTS.items():
        pictures[name] = pixels(comfyui, two_stages(**hand))
    return pictures


@pytest.mark.parametrize("name", REQUESTS)
def test_pictures_equal_those_wired_by_hand(
    comfyui: RealComfyUI, by_hand: dict[str, bytes], name: str
) -> None:
    loras, _ = REQUESTS[name]
    plan = comfyui.plan(workflow=two_stages(), loras=loras)
    assert pixels(comfyui, plan.workflow) == by_hand[name]
    warned = [warning for warning in plan.warnings if "both models" in warning]
    assert len(warned) == (1 if name == "single" else 0)


def test_the_pictures_differ(by_hand: dict[str, bytes]) -> None:
    alike = {"by target": "by name", "by title": "by sampler"}
    different = {picture for name, picture in by_hand.items() if name not in alike}
    assert len(different) == len(by_hand) - len(alike)
