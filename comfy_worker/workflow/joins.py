"""Finds which of several joined latents or pictures gives the result its size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["adds_batches", "joins", "leading_input"]

# By class: the input whose size the result has. The other inputs are resized, or laid on it.
LEADING_INPUTS = {
    "ImageBatch": "image1",
    "ImageBlend": "image1",
    "ImageCompositeMasked": "destination",
    "LTXVConcatAVLatent": "video_latent",
    "LatentAdd": "samples1",
    "LatentBatch": "samples1",
    "LatentBlend": "samples1",
    "LatentComposite": "samples_to",
    "LatentCompositeMasked": "destination",
    "LatentInterpolate": "samples1",
    "LatentSubtract": "samples1",
    "ReplaceVideoLatentFrames": "destination",
}
# Classes with any number of numbered inputs: the first input gives the size.
NUMBERED_CLASSES = frozenset({"BatchImagesNode", "BatchLatentsNode"})
# The batch of the result is as large as the batches of all inputs together.
ADDING_CLASSES = NUMBERED_CLASSES | {"ImageBatch", "LatentBatch"}


def leading_input(graph: TypedWorkflow, node_id: str, node_inputs: Sequence[Input]) -> Input | None:
    """Return the latent or picture whose size a node's result has; None if it is not known.

    Args:
        graph: the workflow.
        node_id: the node.
        node_inputs: its inputs for latents, or for pictures.
    """
    if len(node_inputs) == 1:
        return node_inputs[0]
    class_type = graph.class_type(node_id)
    if class_type in NUMBERED_CLASSES:
        return min(node_inputs, key=_number, default=None)
    name = LEADING_INPUTS.get(class_type)
    return next((node_input for node_input in node_inputs if node_input.name == name), None)


def joins(class_type: str) -> bool:
    """Whether a node of this class joins latents or pictures and keeps the size of one of them."""
    return class_type in LEADING_INPUTS or class_type in NUMBERED_CLASSES


def adds_batches(class_type: str) -> bool:
    """Whether a node of this class adds up the batches of its inputs."""
    return class_type in ADDING_CLASSES


def _number(node_input: Input) -> int:
    found = re.search(r"\d+$", node_input.name)
    return int(found[0]) if found else 0
