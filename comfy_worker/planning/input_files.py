"""Takes in the files that a client sent, and lets the workflow name them."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_worker.errors import brief
from comfy_worker.inputs.files import InputFiles
from comfy_worker.inputs.inline_source import is_inline_source
from comfy_worker.request.schema import JobInput
from comfy_worker.workflow.check.file_access import file_inputs
from comfy_worker.workflow.edit.input_files import (
    picture_names,
    rename_input_files,
    takes_picture,
    without_browser_files,
)
from comfy_worker.workflow.edit.parameters import Declared
from comfy_worker.workflow.graph import Input, Workflow, links_of
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.workflow_editor import WorkflowEditor

__all__ = [
    "came_with_job",
    "take_declared_pictures",
    "take_inline_files",
    "take_named_images",
    "take_pictures",
    "without_equal_sizes",
]


def take_pictures(
    files: InputFiles, request: JobInput, roles: Roles, *, image_is_clip: bool = False
) -> dict[str, str]:
    """Take in the image, the mask and the control images.

    If the workflow reads its mask from the image's alpha channel, image and mask become one file.

    Args:
        files: where they are stored.
        request: what the client sent.
        roles: of the workflow.
        image_is_clip: whether ``image`` is a video or sound, for a template that starts with one.

    Returns:
        The names of the files to fill in, by parameter.
    """
    sent = {"image": request.image, "mask": request.mask}
    for index, controlnet in enumerate(request.controlnets):
        sent[f"controlnets.{index}.image"] = controlnet.image
    has_both = bool(request.image and request.mask)
    is_merged = has_both and bool(roles.alpha_masks) and "mask" not in roles.inputs
    pictures = {key: value for key, value in sent.items() if value is not None}
    if image_is_clip and request.image is not None:
        files.add_any({"image": pictures.pop("image")})
    files.add_pictures(pictures, merged=is_merged)
    parameters = ["image"] if is_merged else ["image", "mask"]
    return {key: files.names[key] for key in parameters if key in files.names}


def take_declared_pictures(
    files: InputFiles,
    request: JobInput,
    workflow: Workflow,
    defs: NodeDefs,
    declared: Mapping[str, Declared],
) -> dict[str, str]:
    """Take in the pictures that are sent for a template's own parameters.

    Returns:
        The names of the files to fill in, by parameter.
    """
    sent = {}
    for name, value in request.parameters.items():
        entry = declared.get(name)
        if entry is None or entry.node not in workflow or not isinstance(value, str):
            continue
        if takes_picture(workflow, defs, entry.node, entry.input):
            sent[f"parameters.{name}"] = value
    files.add_pictures(sent)
    return {key.partition(".")[2]: files.names[key] for key in sent}


def take_named_images(
    files: InputFiles, request: JobInput, workflow: Workflow, defs: NodeDefs
) -> tuple[Workflow, list[str]]:
    """Take in ``images``, and let the nodes that name them name the stored files.

    Returns:
        The new workflow, and a warning for each image that no node names and each drawing that was
        not sent.
    """
    names: dict[str, str] = {}
    sent: dict[str, str] = {}
    for index, image in enumerate(request.images):
        key = f"images.{index}.image"
        names[key], sent[key] = image.name, image.image
    pictures = picture_names(workflow, defs)
    files.add_any(sent, [key for key in sent if names[key] in pictures])
    stored = {names[key]: files.names[key] for key in sent}
    workflow, used = rename_input_files(workflow, defs, stored)
    warnings = [f"images: no node names '{brief(name)}'" for name in stored if name not in used]
    workflow, lost = without_browser_files(workflow, defs, set(files.names.values()))
    return workflow, [*warnings, *lost]


def take_inline_files(
    files: InputFiles, workflow: Workflow, defs: NodeDefs, roles: Roles
) -> Workflow:
    """Take in files that a workflow contains as a URL or data URI in place of a file name."""
    editor = WorkflowEditor(workflow)
    inputs: dict[str, Input] = {}
    sent: dict[str, str] = {}
    pictures: list[str] = []
    for node_input in file_inputs(workflow, defs, roles.outputs):
        value = workflow[node_input.node_id]["inputs"][node_input.name]
        if is_inline_source(value):
            key = f"node {node_input}"
            inputs[key], sent[key] = node_input, value
            if takes_picture(workflow, defs, node_input.node_id, node_input.name):
                pictures.append(key)
    files.add_any(sent, pictures)
    for key in sent:
        editor.set(inputs[key], files.names[key])
    return editor.workflow


def without_equal_sizes(files: InputFiles, workflow: Workflow) -> Workflow:
    """Leave sent pictures as they are where ``ImageScale`` has the size that they have already.

    ComfyUI rounds the pixels of a picture even then. 0 for both sides keeps the picture.
    """
    kept: list[str] = []
    for node_id, node in workflow.items():
        if node["class_type"] != "ImageScale":
            continue
        source = links_of(node).get("image")
        if source is None or source.node_id not in workflow:
            continue
        name = workflow[source.node_id]["inputs"].get("image")
        size = node["inputs"].get("width"), node["inputs"].get("height")
        if isinstance(name, str) and files.picture_size(name) == size:
            kept.append(node_id)
    if not kept:
        return workflow
    editor = WorkflowEditor(workflow)
    for node_id in kept:
        editor.set(Input(node_id, "width"), 0)
        editor.set(Input(node_id, "height"), 0)
    return editor.workflow


def came_with_job(files: InputFiles, request: JobInput, name: str) -> bool:
    """Return whether an input file of that name came with the job: a job can read no other."""
    sent = {*files.names.values(), *(image.name for image in request.images)}
    return is_inline_source(name) or name.removesuffix(" [input]") in sent
