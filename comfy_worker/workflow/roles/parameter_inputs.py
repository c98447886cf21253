"""Which inputs of a node hold a parameter's value, by the input's name and type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.literals import resolve_live_literal
from comfy_worker.workflow.resizers import SIDES
from comfy_worker.workflow.settable import settable
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = [
    "PARAMETER_INPUTS",
    "TEXT_SIDES",
    "ParameterInputs",
    "declared_inputs",
    "has_size",
    "literals_of",
    "written_inputs",
    "written_inputs_of",
]


class ParameterInputs(NamedTuple):
    """How nodes name and type the input for a parameter.

    Attributes:
        names: the input names, the clearest first.
        types: the types that the input may have.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]


NUMBER = ("FLOAT", "INT")
WORD = ("COMBO", "STRING")

PARAMETER_INPUTS = {
    "seed": ParameterInputs(("seed", "noise_seed"), ("INT",)),
    "steps": ParameterInputs(("steps", "num_inference_steps"), ("INT",)),
    "cfg": ParameterInputs(("cfg", "cfg_scale", "cfg_conds"), NUMBER),
    "guidance": ParameterInputs(("guidance", "guidance_scale"), NUMBER),
    "sampler": ParameterInputs(("sampler_name", "sampler"), WORD),
    "scheduler": ParameterInputs(("scheduler",), WORD),
    "denoise": ParameterInputs(("denoise", "denoising_strength"), ("FLOAT",)),
    "width": ParameterInputs(("width", "empty_latent_width"), ("INT",)),
    "height": ParameterInputs(("height", "empty_latent_height"), ("INT",)),
    "length": ParameterInputs(("length", "video_frames", "num_frames"), ("INT",)),
    "fps": ParameterInputs(("fps", "frame_rate"), NUMBER),
    "batch_size": ParameterInputs(("batch_size",), ("INT",)),
    "clip_skip": ParameterInputs(("stop_at_clip_layer",), ("INT",)),
    "checkpoint": ParameterInputs(
        ("ckpt_name", "unet_name", "model_name", "model_path", "model"), WORD
    ),
    "vae": ParameterInputs(("vae_name",), WORD),
}

# The parameters that are texts, and the side of the sampler that each of them is for.
TEXT_SIDES = {"prompt": "positive", "negative_prompt": "negative"}


def declared_inputs(graph: TypedWorkflow, node_id: str, parameter: str) -> list[Input]:
    """Return the inputs of a node whose name and type belong to this parameter."""
    names, types = PARAMETER_INPUTS[parameter]
    widgets = graph.view(NamedWidgets).of(node_id)
    for name in names:
        for node_input in reversed(widgets.get(name, ())):
            if graph.type_of(node_input) in types:
                return [node_input]
    if parameter not in ("seed", "cfg"):
        return []
    # `video_cfg` and `audio_cfg`, `noise_seed` and `variation_seed`.
    found: list[Input] = []
    for name, node_inputs in widgets.items():
        if name.endswith(parameter):
            fitting = [item for item in node_inputs if graph.type_of(item) in types]
            found += fitting[-1:]
    return found


class NamedWidgets:
    """The widgets of one workflow's nodes by name; get it with ``graph.view(NamedWidgets)``."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._by_node: dict[str, dict[str, list[Input]]] = {}

    def of(self, node_id: str) -> dict[str, list[Input]]:
        """Return the widgets of a node by their name in lower case."""
        known = self._by_node.get(node_id)
        if known is None:
            known = self._by_node[node_id] = {}
            for node_input in self._graph.widgets(node_id):
                known.setdefault(node_input.name.lower(), []).append(node_input)
        return known


def written_inputs(graph: TypedWorkflow, node_id: str, parameter: str) -> list[Input]:
    """Return the inputs in which a node's value for this parameter is written.

    Returns an empty list if the node has none.
    """
    found: list[Input] = []
    for node_input in declared_inputs(graph, node_id, parameter):
        found += settable(graph, node_input, is_size=parameter in SIDES)
    return found


def written_inputs_of(graph: TypedWorkflow, node_ids: Iterable[str], parameter: str) -> list[Input]:
    """Return the inputs in which the values of several nodes are written, each input once."""
    found: dict[Input, None] = {}
    for node_id in node_ids:
        found |= dict.fromkeys(written_inputs(graph, node_id, parameter))
    return list(found)


def literals_of(graph: TypedWorkflow, node_inputs: Iterable[Input]) -> list[Input]:
    """Return the inputs that hold the literals of these inputs; leave out computed values."""
    literals = (resolve_live_literal(graph, node_input) for node_input in node_inputs)
    return [literal for literal in literals if literal is not None]


def has_size(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node has a width and a height of a whole picture.

    A node with an ``x`` too has those of a part of a larger picture.
    """
    names = {node_input.name for node_input in graph.inputs(node_id)}
    if "x" in names:
        return False
    return all(not names.isdisjoint(PARAMETER_INPUTS[side].names) for side in SIDES)
