"""A spliced LoRA gives the very pixels of one wired by hand, as ComfyUI's own templates wire it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.edit.lora_tags import parse_tags
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.roles.find import find_roles
from tests.base_graphs import GRAPHS, Wire, base_graph, node
from tests.comfyui.conftest import RealComfyUI
from tests.placeholders import CHECKPOINT, LORA, LORA_B, LORA_MODEL_ONLY

pytestmark = pytest.mark.comfyui

PROMPT = "a cat in a garden"


@dataclass(frozen=True)
class Case:
    """What is asked for, and the same wired by hand: the nodes in between, and the outputs that take over."""

    nodes: Workflow
    model: Wire
    clip: Wire
    loras: list[LoraSpec] = field(default_factory=list)
    prompt: str = PROMPT
    clip_skip: int = 1

    def by_hand(self, graph_name: str) -> Workflow:
        return {
            **base_graph(graph_name, CHECKPOINT, prompt=PROMPT, model=self.model, clip=self.clip),
            **self.nodes,
        }

    def spliced(self, graph_name: str, comfyui: RealComfyUI) -> Workflow:
        prompt, tagged = parse_tags(self.prompt)
        graph = base_graph(graph_name, CHECKPOINT, prompt=prompt)
        roles = find_roles(graph, comfyui.defs)
        graph = splice_loras(graph, roles, comfyui.defs, [*self.loras, *tagged])
        return splice_clip_skip(graph, comfyui.defs, self.clip_skip)


ONE = {
    "20": node(
        "LoraLoader",
        model=["1", 0],
        clip=["1", 1],
        lora_name=LORA,
        strength_model=0.8,
        strength_clip=0.8,
    ),
}
CASES = {
    "one": Case(ONE, ("20", 0), ("20", 1), [LoraSpec(LORA, 0.8)]),
    "three": Case(
        {
            **ONE,
            "21": node(
                "LoraLoader",
                model=["20", 0],
                clip=["20", 1],
                lora_name=LORA_B,
                strength_model=-0.5,
                strength_clip=0.3,
            ),
            "22": node(
                "LoraLoaderModelOnly",
                model=["21", 0],
                lora_name=LORA_MODEL_ONLY,
                strength_model=1.0,
            ),
        },
        ("22", 0),
        ("21", 1),
        [
            LoraSpec("lora-a", 0.8),
            LoraSpec("lora-b", -0.5, 0.3),
            LoraSpec("lora-model-only", 1.0, 0.0),
        ],
    ),
    "model only": Case(
        {"20": node("LoraLoaderModelOnly", model=["1", 0], lora_name=LORA, strength_model=0.7)},
        ("20", 0),
        ("1", 1),
        [LoraSpec(LORA, 0.7, 0.0)],
    ),
    "by tag": Case(
        {
            "20": node(
                "LoraLoader",
                model=["1", 0],
                clip=["1", 1],
                lora_name=LORA_B,
                strength_model=0.9,
                strength_clip=0.4,
            )
        },
        ("20", 0),
        ("20", 1),
        prompt=f"{PROMPT}, <lora:lora-b:0.9:0.4>",
    ),
    "clip skip": Case(
        {**ONE, "21": node("CLIPSetLastLayer", clip=["20", 1], stop_at_clip_layer=-2)},
        ("20", 0),
        ("21", 0),
        [LoraSpec(LORA, 0.8)],
        clip_skip=2,
    ),
}


@pytest.fixture(scope="module")
def by_hand(comfyui: RealComfyUI) -> dict[tuple[str, str], bytes]:
    """The pictures of the graphs as they are and wired by hand, made before any spliced one.

    So none is still in ComfyUI's cache when the spliced graph, which may be the same to it, is run.
    """
    pictures = {}
    for graph_name in GRAPHS:
        pictures[graph_name, "plain"] = pixels(
            comfyui, base_graph(graph_name, CHECKPOINT, prompt=PROMPT)
        )
        for name, case in CASES.items():
            pictures[graph_name, name] = pixels(comfyui, case.by_hand(graph_name))
    return pictures


def pixels(comfyui: RealComfyUI, workflow: Workflow) -> bytes:
    (picture,) = comfyui.images(workflow)
    assert picture.size == (64, 64)
    return picture.tobytes()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("graph_name", GRAPHS)
def test_spliced_and_hand_wired_pictures_are_equal(
    comfyui: RealComfyUI, by_hand: dict[tuple[str, str], bytes], graph_name: str, case: str
) -> None:
    assert pixels(comfyui, CASES[case].spliced(graph_name, comfyui)) == by_hand[graph_name, case]


@pytest.mark.parametrize("graph_name", GRAPHS)
def test_no_two_of_the_pictures_are_alike(
    by_hand: dict[tuple[str, str], bytes], graph_name: str
) -> None:
    pictures = [by_hand[graph_name, case] for case in ("plain", *CASES)]
    assert len(set(pictures)) == len(pictures)
