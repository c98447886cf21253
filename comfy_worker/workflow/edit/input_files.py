"""Replaces the file names that a client's workflow uses by the names of the stored files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs

__all__ = ["picture_names", "rename_input_files", "takes_picture", "without_browser_files"]

# What the editor appends to the name of a file that exists only in the browser.
BROWSER_FILE = "[temp]"


def takes_picture(workflow: Workflow, defs: NodeDefs, node_id: str, name: str) -> bool:
    """Return whether an input takes the file of a picture, and not of a video or sound."""
    spec = _spec(defs, workflow[node_id], name)
    return spec is not None and bool(spec.options.get("image_upload"))


def picture_names(workflow: Workflow, defs: NodeDefs) -> set[str]:
    """Return the names of files that the nodes read as pictures only, as the client wrote them."""
    pictures: set[str] = set()
    others: set[str] = set()
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            names = pictures if takes_picture(workflow, defs, node_id, name) else others
            names.add(_plain_name(value, _spec(defs, node, name)))
    return pictures - others


def rename_input_files(
    workflow: Workflow, defs: NodeDefs, stored: Mapping[str, str]
) -> tuple[Workflow, set[str]]:
    """Make every node that names a client's file (``LoadImage``) name the stored file.

    Args:
        workflow: is not changed.
        defs: the node classes of this ComfyUI. Only choices and uploads are changed, never a text.
        stored: by the client's name, the stored file as ``LoadImage`` names it.

    Returns:
        The changed copy, and the client's names that the workflow uses.
    """
    changed, used = dict(workflow), set[str]()
    for node_id, node in workflow.items():
        inputs = {}
        for name, value in node["inputs"].items():
            spec = _spec(defs, node, name)
            plain = _plain_name(value, spec)
            if plain in stored and _names_file(spec):
                inputs[name] = stored[plain]
                used.add(plain)
        if inputs:
            changed[node_id] = {**node, "inputs": {**node["inputs"], **inputs}}
    return changed, used


def without_browser_files(
    workflow: Workflow, defs: NodeDefs, sent: Collection[str]
) -> tuple[Workflow, list[str]]:
    """Empty the canvases of the editor (``Painter``) whose drawing exists only in a browser.

    Args:
        workflow: is not changed.
        defs: the node classes of this ComfyUI.
        sent: the files that came with the job.

    Returns:
        The changed copy, and a warning for each drawing that is left out.
    """
    changed, warnings = dict(workflow), list[str]()
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            is_lost = isinstance(value, str) and value.endswith(BROWSER_FILE) and value not in sent
            if is_lost and _is_canvas(_spec(defs, node, name)):
                changed[node_id] = {**node, "inputs": {**changed[node_id]["inputs"], name: ""}}
                warnings.append(
                    f"{name} of node {node_id} is left empty: the drawing was not sent; "
                    "send its file in `images`"
                )
    return changed, warnings


def _spec(defs: NodeDefs, node: Mapping[str, Any], name: str) -> InputSpec | None:
    declared = defs.get(node["class_type"])
    return declared.spec(name, node["inputs"]) if declared else None


def _is_canvas(spec: InputSpec | None) -> bool:
    return spec is not None and spec.is_upload and spec.type == "STRING"


def _names_file(spec: InputSpec | None) -> bool:
    return spec is None or spec.type == "COMBO" or spec.is_upload


def _plain_name(value: Any, spec: InputSpec | None) -> str:
    """Return a file's name without the suffix of ComfyUI: ``[input]``, for a canvas ``[temp]``."""
    if not isinstance(value, str):
        return ""
    if spec is not None and spec.type == "STRING" and value.endswith(BROWSER_FILE):
        return value[: -len(BROWSER_FILE)].rstrip()
    return value.removesuffix(" [input]")
