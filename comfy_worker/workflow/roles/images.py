"""Finds the inputs that name an uploaded picture, and whether its pixels or its mask are used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from comfy_worker.workflow.graph import Input, Link
from comfy_worker.workflow.roles.parameter_inputs import literals_of
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["LoadedImages", "first_image", "loaded_images", "upload_inputs"]


@dataclass(frozen=True)
class LoadedImages:
    """The inputs that name an uploaded picture.

    Attributes:
        image: those whose pixels are used.
        mask: those of which only the mask is used.
        alpha_masks: those of ``image`` whose alpha channel is used as a mask too.
    """

    image: list[Input] = field(default_factory=list)
    mask: list[Input] = field(default_factory=list)
    alpha_masks: list[Input] = field(default_factory=list)


def upload_inputs(graph: TypedWorkflow, node_id: str) -> list[Input]:
    """Return the inputs of a node that name a picture of ComfyUI's input folder."""
    found = []
    for node_input in graph.inputs(node_id):
        spec = graph.spec(node_input)
        if spec is not None and spec.options.get("image_upload"):
            found.append(node_input)
    return found


def loaded_images(
    graph: TypedWorkflow, live: Iterable[str], slots_read: Mapping[str, Collection[Link]]
) -> LoadedImages:
    """Find the inputs that name an uploaded picture.

    Args:
        graph: the workflow.
        live: the nodes that feed an output.
        slots_read: by node, the outputs that live nodes read.
    """
    found = LoadedImages()
    for node_id in live:
        declared = graph.declared(node_id)
        if declared is None:
            continue
        literals = literals_of(graph, upload_inputs(graph, node_id))
        used = {graph.output_type(link) for link in slots_read.get(node_id, ())}
        is_mask = used == {"MASK"} or "IMAGE" not in declared.outputs
        if is_mask:
            found.mask.extend(literals)
        else:
            found.image.extend(literals)
        if {"IMAGE", "MASK"} <= used:
            found.alpha_masks.extend(literals)
    return found


def first_image(
    graph: TypedWorkflow, images: list[Input], outputs: Iterable[str], starts: Collection[str]
) -> list[Input]:
    """Choose the picture that a stage starts from; otherwise the first one in reading order.

    This prefers a start image to a control map, and a first frame to a last frame.

    Args:
        graph: the workflow.
        images: the inputs to choose from.
        outputs: the ids of the output nodes.
        starts: the nodes that make the latents that the stages start from.

    Returns:
        The inputs that name this picture.
    """
    order = {node_id: number for number, node_id in enumerate(graph.reading_order(outputs))}

    def rank(node_input: Input) -> tuple[bool, int]:
        return node_input.node_id not in starts, order.get(node_input.node_id, len(order))

    if not images:
        return []
    first = graph.value(min(images, key=rank))
    return [node_input for node_input in images if graph.value(node_input) == first]
