"""Declarations of some of ComfyUI 0.3.75's own node classes, cut from its ``/object_info``, and a graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.roles.roles import Roles

OBJECT_INFO: dict[str, Any] = json.loads(
    Path(__file__).with_name("core_nodes.json").read_text(encoding="utf-8")
)
DEFS = NodeDefs(OBJECT_INFO)


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    """One node of an API-format graph."""
    return {
        "class_type": class_type,
        "inputs": inputs,
        **({"_meta": {"title": title}} if title else {}),
    }


def ksampler(**changes: Any) -> dict[str, Any]:
    """A KSampler on the nodes of :func:`txt2img`."""
    inputs = {
        "model": ["loader", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
        "seed": 5,
        "steps": 20,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    return node("KSampler", **{**inputs, **changes})


def second_stage(**changes: Any) -> dict[str, Any]:
    """A KSampler that continues the one of :func:`txt2img`."""
    return ksampler(
        **{"latent_image": ["sampler", 0], "seed": 6, "steps": 10, "denoise": 0.5, **changes}
    )


def txt2img(**nodes: dict[str, Any]) -> Workflow:
    """Text to image, with nodes put in place of its own or added."""
    return {
        "loader": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        "positive": node("CLIPTextEncode", clip=["loader", 1], text="a lighthouse"),
        "negative": node("CLIPTextEncode", clip=["loader", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "sampler": ksampler(),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["loader", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="test"),
        **nodes,
    }


def changes(graph: Workflow, result: Workflow) -> dict[str, Any]:
    """The inputs that differ between two workflows of the same nodes, written ``node_id.name``."""
    assert graph.keys() == result.keys()
    return {
        f"{node_id}.{name}": value
        for node_id in result
        for name, value in result[node_id]["inputs"].items()
        if graph[node_id]["inputs"].get(name) != value
    }


def found(roles: Roles, name: str) -> list[str] | str | None:
    """The places of a parameter, ``ambiguous``, or None."""
    if name in roles.ambiguous:
        return "ambiguous"
    return sorted(map(str, roles.inputs[name])) if name in roles.inputs else None


def found_in(graph: Workflow, name: str) -> list[str] | str | None:
    """The same of a graph of these classes."""
    return found(find_roles(graph, DEFS), name)
