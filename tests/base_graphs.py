"""Text-to-image graphs of every kind of sampler, small and written by hand, and what their nodes are for.

Each takes where its model, its text encoder and its conditioning come from, so that a graph with something in
between can be wired by hand as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler

__all__ = ["GRAPHS", "Wire", "base_graph", "node", "roles_of", "small_defs"]

OBJECT_INFO = Path(__file__).parent / "unit" / "splice_object_info.json"

Wire = tuple[str, int]

# By kind of graph: the id of each sampler, and of the node that takes its model and conditioning.
GRAPHS = {
    "KSampler": {"5": "5"},
    "KSampler twice": {"5": "5", "6": "6"},
    "KSamplerAdvanced": {"5": "5", "6": "6"},
    "SamplerCustom": {"5": "5"},
    "CFGGuider": {"5": "9"},
    "BasicGuider": {"5": "9"},
}


def base_graph(
    graph_name: str,
    checkpoint: str,
    *,
    prompt: str = "a cat in a garden",
    model: Wire = ("1", 0),
    clip: Wire = ("1", 1),
    positive: Wire = ("2", 0),
    negative: Wire = ("3", 0),
) -> dict[str, Any]:
    """A graph of one kind of :data:`GRAPHS`, 64x64 in two steps; nodes 1 to 19 are its own."""
    wires = {"model": list(model), "positive": list(positive), "negative": list(negative)}
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", clip=list(clip), text=prompt),
        "3": node("CLIPTextEncode", clip=list(clip), text="blurry"),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        **_samplers(graph_name, wires),
        "7": node("VAEDecode", samples=[max(GRAPHS[graph_name]), 0], vae=["1", 2]),
        "8": node("SaveImage", images=["7", 0], filename_prefix="base"),
    }
    if graph_name == "BasicGuider":
        del graph["3"]
    return graph


def _samplers(graph_name: str, wires: dict[str, Any]) -> dict[str, Any]:
    plain = {"seed": 7, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", **wires}
    if graph_name.startswith("KSampler "):
        first = node("KSampler", **plain, steps=2, denoise=1.0, latent_image=["4", 0])
        return {
            "5": first,
            "6": node("KSampler", **plain, steps=2, denoise=0.6, latent_image=["5", 0]),
        }
    if graph_name == "KSampler":
        return {"5": node("KSampler", **plain, steps=2, denoise=1.0, latent_image=["4", 0])}
    if graph_name == "KSamplerAdvanced":
        del plain["seed"]
        staged = {**plain, "noise_seed": 7, "steps": 2}
        start = {
            "add_noise": "enable",
            "start_at_step": 0,
            "end_at_step": 1,
            "return_with_leftover_noise": "enable",
        }
        end = {
            "add_noise": "disable",
            "start_at_step": 1,
            "end_at_step": 10000,
            "return_with_leftover_noise": "disable",
        }
        return {
            "5": node("KSamplerAdvanced", **staged, **start, latent_image=["4", 0]),
            "6": node("KSamplerAdvanced", **staged, **end, latent_image=["5", 0]),
        }
    custom = {
        "10": node("KSamplerSelect", sampler_name="euler"),
        "11": node(
            "BasicScheduler", model=wires["model"], scheduler="normal", steps=2, denoise=1.0
        ),
    }
    ends = {"sampler": ["10", 0], "sigmas": ["11", 0], "latent_image": ["4", 0]}
    if graph_name == "SamplerCustom":
        return {
            **custom,
            "5": node("SamplerCustom", add_noise=True, noise_seed=7, cfg=7.0, **wires, **ends),
        }
    guider = (
        node("BasicGuider", model=wires["model"], conditioning=wires["positive"])
        if graph_name == "BasicGuider"
        else node("CFGGuider", cfg=7.0, **wires)
    )
    noise = node("RandomNoise", noise_seed=7)
    sampler = node("SamplerCustomAdvanced", noise=["12", 0], guider=["9", 0], **ends)
    return {**custom, "9": guider, "12": noise, "5": sampler}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of an API-format graph."""
    return {"class_type": class_type, "inputs": inputs}


def roles_of(graph_name: str) -> Roles:
    """The samplers of a base graph, known and not found."""
    basic = graph_name == "BasicGuider"
    samplers = tuple(
        Sampler(
            node_id=sampler,
            model=Input(holder, "model"),
            positive=Input(holder, "conditioning" if basic else "positive"),
            negative=None if basic else Input(holder, "negative"),
            latent=Input(sampler, "latent_image"),
        )
        for sampler, holder in GRAPHS[graph_name].items()
    )
    return Roles(samplers, {}, {}, ("8",))


def small_defs(
    further: Mapping[str, dict[str, Any]] | None = None,
    *,
    loras: Sequence[str] = (),
    controlnets: Sequence[str] = (),
) -> NodeDefs:
    """The declarations of the classes that the splices touch, cut from ComfyUI 0.3.75's own ``/object_info``.

    Args:
        further: declarations of other classes, by name.
        loras: the files that the LoRA loaders list.
        controlnets: the files that ControlNetLoader lists.
    """
    info = json.loads(OBJECT_INFO.read_text(encoding="utf-8"))
    for name in ("LoraLoader", "LoraLoaderModelOnly"):
        info[name]["input"]["required"]["lora_name"] = [list(loras)]
    info["ControlNetLoader"]["input"]["required"]["control_net_name"] = [list(controlnets)]
    return NodeDefs({**info, **(further or {})})
