"""A spliced ControlNet gives the very pixels of one wired by hand, as ComfyUI's own templates wire it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from PIL import Image, ImageDraw

from comfy_worker.workflow.edit.controlnet import (
    ControlNetRules,
    ControlNetSpec,
    splice_controlnets,
)
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.roles.find import find_roles
from tests.base_graphs import GRAPHS, Wire, base_graph, node
from tests.comfyui.conftest import RealComfyUI
from tests.placeholders import CHECKPOINT, CONTROLNET, CONTROLNET_B, CONTROLNET_UNION, LORA

pytestmark = pytest.mark.comfyui


@dataclass(frozen=True)
class Case:
    """What is asked for, and the same wired by hand: the nodes in between, and the outputs that take over.

    ``nodes`` is given where the negative conditioning comes from.
    """

    nodes: Callable[[Wire], Workflow]
    last: str
    controlnets: list[ControlNetSpec]
    loras: list[LoraSpec] = field(default_factory=list)
    model: Wire = ("1", 0)
    clip: Wire = ("1", 1)

    def by_hand(self, graph_name: str) -> Workflow:
        graph = base_graph(
            graph_name,
            CHECKPOINT,
            model=self.model,
            clip=self.clip,
            positive=(self.last, 0),
            negative=(self.last, 1),
        )
        # BasicGuider has no negative, the apply node wants one: templates give it an empty text.
        graph["3"] = node(
            "CLIPTextEncode",
            clip=list(self.clip),
            text="" if graph_name == "BasicGuider" else "blurry",
        )
        return {**graph, **self.nodes(("3", 0))}

    def spliced(self, graph_name: str, comfyui: RealComfyUI) -> Workflow:
        graph = base_graph(graph_name, CHECKPOINT)
        roles = find_roles(graph, comfyui.defs)
        graph = splice_loras(graph, roles, comfyui.defs, self.loras)
        return splice_controlnets(
            graph,
            roles,
            comfyui.defs,
            self.controlnets,
            rules=ControlNetRules(is_union=lambda file: file == CONTROLNET_UNION),
        )


def apply(
    positive: Wire,
    negative: Wire,
    control_net: Wire,
    image: Wire,
    strength: float,
    start: float,
    end: float,
) -> dict[str, object]:
    return node(
        "ControlNetApplyAdvanced",
        positive=list(positive),
        negative=list(negative),
        control_net=list(control_net),
        image=list(image),
        strength=strength,
        start_percent=start,
        end_percent=end,
    )


LOAD_A = {
    "20": node("LoadImage", image="map.png"),
    "21": node("ControlNetLoader", control_net_name=CONTROLNET),
}
LOAD_B = {
    "30": node("LoadImage", image="photo.png"),
    "31": node("ControlNetLoader", control_net_name=CONTROLNET_B),
}

CASES = {
    "one": Case(
        lambda negative: {
            **LOAD_A,
            "22": apply(("2", 0), negative, ("21", 0), ("20", 0), 0.8, 0.0, 1.0),
        },
        "22",
        [ControlNetSpec("map.png", model="canny-a", strength=0.8)],
    ),
    "for the first steps": Case(
        lambda negative: {
            **LOAD_A,
            "22": apply(("2", 0), negative, ("21", 0), ("20", 0), 0.8, 0.0, 0.3),
        },
        "22",
        [ControlNetSpec("map.png", model="canny-a", strength=0.8, end=0.3)],
    ),
    "for the last steps": Case(
        lambda negative: {
            **LOAD_A,
            "22": apply(("2", 0), negative, ("21", 0), ("20", 0), 0.8, 0.4, 1.0),
        },
        "22",
        [ControlNetSpec("map.png", model="canny-a", strength=0.8, start=0.4)],
    ),
    "canny of a photo": Case(
        lambda negative: {
            "20": node("LoadImage", image="photo.png"),
            "21": node("ControlNetLoader", control_net_name=CONTROLNET),
            "23": node("Canny", image=["20", 0], low_threshold=0.4, high_threshold=0.8),
            "22": apply(("2", 0), negative, ("21", 0), ("23", 0), 1.0, 0.0, 1.0),
        },
        "22",
        [ControlNetSpec("photo.png", type="canny")],
    ),
    "two": Case(
        lambda negative: {
            **LOAD_A,
            **LOAD_B,
            "22": apply(("2", 0), negative, ("21", 0), ("20", 0), 0.8, 0.0, 1.0),
            "32": apply(("22", 0), ("22", 1), ("31", 0), ("30", 0), 0.5, 0.0, 1.0),
        },
        "32",
        [
            ControlNetSpec("map.png", type="canny", strength=0.8, preprocess=False),
            ControlNetSpec("photo.png", type="depth", strength=0.5),
        ],
    ),
    "union": Case(
        lambda negative: {
            "20": node("LoadImage", image="map.png"),
            "21": node("ControlNetLoader", control_net_name=CONTROLNET_UNION),
            "23": node("SetUnionControlNetType", control_net=["21", 0], type="openpose"),
            "22": apply(("2", 0), negative, ("23", 0), ("20", 0), 1.0, 0.0, 1.0),
        },
        "22",
        [ControlNetSpec("map.png", type="openpose")],
    ),
    "with a LoRA": Case(
        lambda negative: {
            **LOAD_A,
            "10020": node(
                "LoraLoader",
                model=["1", 0],
                clip=["1", 1],
                lora_name=LORA,
                strength_model=0.8,
                strength_clip=0.8,
            ),
            "22": apply(("2", 0), negative, ("21", 0), ("20", 0), 0.8, 0.0, 1.0),
        },
        "22",
        [ControlNetSpec("map.png", model="canny-a", strength=0.8)],
        [LoraSpec(LORA, 0.8)],
        ("10020", 0),
        ("10020", 1),
    ),
}


@pytest.fixture(scope="module")
def by_hand(comfyui: RealComfyUI) -> dict[tuple[str, str], bytes]:
    """The pictures of the graphs as they are and wired by hand, made before any spliced one.

    So none is still in ComfyUI's cache when the spliced graph, which may be the same to it, is run.
    """
    photo = Image.new("RGB", (64, 64), "navy")
    ImageDraw.Draw(photo).ellipse((12, 20, 50, 44), fill="gold")
    photo.save(comfyui.input_dir / "photo.png")
    control_map = Image.new("RGB", (64, 64))
    ImageDraw.Draw(control_map).rectangle((10, 10, 40, 50), outline="white", width=2)
    control_map.save(comfyui.input_dir / "map.png")
    pictures = {}
    for graph_name in GRAPHS:
        pictures[graph_name, "plain"] = pixels(comfyui, base_graph(graph_name, CHECKPOINT))
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
