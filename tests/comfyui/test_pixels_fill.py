"""A filled graph gives the very pixels of one written out by hand, wired as ComfyUI's own templates are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import ImageOps

from comfy_worker.workflow.graph import Workflow
from tests import pictures
from tests.base_graphs import GRAPHS, base_graph, node
from tests.comfyui.conftest import RealComfyUI
from tests.placeholders import CHECKPOINT

pytestmark = pytest.mark.comfyui

Pixels = tuple[tuple[int, int], str]

ASKED: dict[str, Any] = {
    "prompt": "a red fox",
    "negative_prompt": "low quality",
    "seed": 11,
    "steps": 5,
    "cfg": 4.5,
    "sampler": "heun",
    "scheduler": "karras",
}
# The same by hand, for each kind of graph: what stands in which node.
TEXTS = {"2": {"text": "a red fox"}, "3": {"text": "low quality"}}
KSAMPLER = {"seed": 11, "steps": 5, "cfg": 4.5, "sampler_name": "heun", "scheduler": "karras"}
STAGE = {"noise_seed": 11, "steps": 5, "cfg": 4.5, "sampler_name": "heun", "scheduler": "karras"}
CUSTOM: dict[str, dict[str, Any]] = {
    "10": {"sampler_name": "heun"},
    "11": {"scheduler": "karras", "steps": 5},
}
BY_HAND: dict[str, dict[str, dict[str, Any]]] = {
    "KSampler": {"5": KSAMPLER},
    # The first stage has 8 of 10 steps to begin with.
    "KSamplerAdvanced": {"5": {**STAGE, "end_at_step": 4}, "6": {**STAGE, "start_at_step": 4}},
    "SamplerCustom": {**CUSTOM, "5": {"noise_seed": 11, "cfg": 4.5}},
    "CFGGuider": {**CUSTOM, "9": {"cfg": 4.5}, "12": {"noise_seed": 11}},
}
# The node that holds the first pass's denoise.
DENOISE = {"KSampler": "5", "SamplerCustom": "11", "CFGGuider": "11"}

PHOTO = pictures.photo()
MASK = pictures.mask()
IMAGE = {"image": pictures.encoded(PHOTO)}
IMAGE_AND_MASK = {**IMAGE, "mask": pictures.encoded(MASK)}
SIZE = {"width": 96, "height": 64}

LOAD = node("LoadImage", image="example.png")


@dataclass(frozen=True)
class Case:
    """What is asked for beside ``ASKED``, the graph's further nodes, and what then stands in which node by hand.

    ``denoise`` is asked for where the first pass begins with a picture.
    """

    job_input: dict[str, Any]
    nodes: Workflow = field(default_factory=dict)
    by_hand: dict[str, dict[str, Any]] = field(default_factory=dict)
    denoise: float | None = None

    def graph(self, graph_name: str) -> Workflow:
        graph = {**base_graph(graph_name, CHECKPOINT), **self.nodes}
        if graph_name == "KSamplerAdvanced":
            put(
                graph,
                {"5": {"steps": 10, "end_at_step": 8}, "6": {"steps": 10, "start_at_step": 8}},
            )
        if "31" in graph:
            if graph_name == "KSamplerAdvanced":
                put(
                    graph, {"31": {"steps": 10}}
                )  # as many as the first stage: steps stay in proportion
            put(
                graph,
                {"30": {"samples": [max(GRAPHS[graph_name]), 0]}, "7": {"samples": ["31", 0]}},
            )
        return graph

    def written(self, graph_name: str) -> Workflow:
        """The graph by hand."""
        graph = self.graph(graph_name)
        put(graph, {**TEXTS, **BY_HAND[graph_name]})
        put(graph, self.by_hand)
        if self.denoise and graph_name in DENOISE:
            put(graph, {DENOISE[graph_name]: {"denoise": self.denoise}})
        return graph

    def filled(self, graph_name: str, comfyui: RealComfyUI) -> Workflow:
        """The graph by a job's input."""
        denoise = {"denoise": self.denoise} if self.denoise and graph_name in DENOISE else {}
        return comfyui.plan(
            workflow=self.graph(graph_name), **ASKED, **self.job_input, **denoise
        ).workflow


def put(graph: Workflow, inputs: dict[str, dict[str, Any]]) -> None:
    for node_id, values in inputs.items():
        graph[node_id] = {**graph[node_id], "inputs": {**graph[node_id]["inputs"], **values}}


CASES = {
    "txt2img": Case(SIZE, by_hand={"4": SIZE}),
    "clip skip": Case(
        {"clip_skip": 2},
        {
            "20": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-1),
            "2": node("CLIPTextEncode", clip=["20", 0], text="a cat"),
            "3": node("CLIPTextEncode", clip=["20", 0], text="blurry"),
        },
        {"20": {"stop_at_clip_layer": -2}},
    ),
    "img2img": Case(
        IMAGE,
        {"20": LOAD, "4": node("VAEEncode", pixels=["20", 0], vae=["1", 2])},
        {"20": {"image": "photo.png"}},
        denoise=0.6,
    ),
    "inpaint": Case(
        IMAGE_AND_MASK,
        {
            "20": LOAD,
            "4": node(
                "VAEEncodeForInpaint",
                pixels=["20", 0],
                mask=["20", 1],
                vae=["1", 2],
                grow_mask_by=6,
            ),
        },
        {"20": {"image": "transparent.png"}},
        denoise=1.0,
    ),
    "inpaint with a mask of its own": Case(
        IMAGE_AND_MASK,
        {
            "20": LOAD,
            "21": node("LoadImageMask", image="example.png", channel="red"),
            "22": node("VAEEncode", pixels=["20", 0], vae=["1", 2]),
            "4": node("SetLatentNoiseMask", samples=["22", 0], mask=["21", 0]),
        },
        {"20": {"image": "photo.png"}, "21": {"image": "mask.png"}},
        denoise=0.8,
    ),
    "hires fix": Case(
        {**SIZE, "denoise": 0.4},
        {
            "30": node(
                "LatentUpscale",
                upscale_method="nearest-exact",
                width=128,
                height=128,
                crop="disabled",
            ),
            "31": node(
                "KSampler",
                model=["1", 0],
                positive=["2", 0],
                negative=["3", 0],
                latent_image=["30", 0],
                seed=7,
                steps=2,
                cfg=7.0,
                sampler_name="euler",
                scheduler="normal",
                denoise=0.5,
            ),
        },
        {"4": SIZE, "30": {"width": 192, "height": 128}, "31": {**KSAMPLER, "denoise": 0.4}},
    ),
}


@pytest.fixture(scope="module")
def by_hand(comfyui: RealComfyUI) -> dict[tuple[str, str], Pixels]:
    """The pictures of the graphs written by hand, made before any filled one.

    So none is still in ComfyUI's cache when the filled graph, which may be the same to it, is run.
    """
    PHOTO.save(comfyui.input_dir / "photo.png")
    # In the mode that the worker stores: of a grey picture ComfyUI 0.33 reads some values otherwise.
    MASK.convert("RGBA").save(comfyui.input_dir / "mask.png")
    transparent = PHOTO.convert("RGBA")
    transparent.putalpha(ImageOps.invert(MASK))
    transparent.save(comfyui.input_dir / "transparent.png")
    return {
        (graph_name, name): pixels(comfyui, CASES[name].written(graph_name))
        for graph_name in BY_HAND
        for name in CASES
    }


def pixels(comfyui: RealComfyUI, workflow: Workflow) -> Pixels:
    (picture,) = comfyui.images(workflow)
    return picture.size, hashlib.sha256(picture.tobytes()).hexdigest()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("graph_name", BY_HAND)
def test_filled_and_hand_written_pictures_are_equal(
    comfyui: RealComfyUI, by_hand: dict[tuple[str, str], Pixels], graph_name: str, name: str
) -> None:
    assert pixels(comfyui, CASES[name].filled(graph_name, comfyui)) == by_hand[graph_name, name]


@pytest.mark.parametrize("graph_name", BY_HAND)
def test_no_two_of_the_pictures_are_alike(
    by_hand: dict[tuple[str, str], Pixels], graph_name: str
) -> None:
    assert len({by_hand[graph_name, name] for name in CASES}) == len(CASES)


@pytest.mark.parametrize("graph_name", ["KSampler", "KSamplerAdvanced"])
def test_each_value_shows_in_the_picture(comfyui: RealComfyUI, graph_name: str) -> None:
    graph = CASES["txt2img"].graph(graph_name)
    inputs = [ASKED, *({key: ASKED[key] for key in ASKED if key != left_out} for left_out in ASKED)]
    filled = [comfyui.plan(workflow=graph, **values).workflow for values in inputs]
    assert len({pixels(comfyui, workflow) for workflow in filled}) == len(inputs)
