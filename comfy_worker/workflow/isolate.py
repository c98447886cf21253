"""Keeps the outputs of jobs apart: each job's saving nodes write into a folder of its own.

For results as raw pixels, saving nodes are replaced by a node of ours that does not encode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from comfy_worker.errors import InvalidValue, InvalidWorkflow, brief
from comfy_worker.workflow.check.file_access import climbs
from comfy_worker.workflow.graph import Input, Workflow, title_of
from comfy_worker.workflow.literals import resolve_literal
from comfy_worker.workflow.node_defs import NodeClass, NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = [
    "RAW_OUTPUT",
    "check_reserved",
    "isolate_outputs",
    "output_folders",
    "replace_save_nodes",
]

RAW_OUTPUT = "ComfyWorkerOutput"
# Only ComfyUI's cache looks at this input.
JOB_FOLDER = "comfy_worker_folder"
# By class that our node replaces: the folder that it writes to, and its default prefix.
REPLACED = {
    "SaveImage": ("output", "ComfyUI"),
    "PreviewImage": ("temp", "ComfyUI_temp"),
    "SaveImageWebsocket": ("output", "ComfyUI"),
}

# This class encodes by itself, but its 8-bit PNG equals SaveImage's, except for the end of its
# name. Its other formats have more than 8 bits, so those files stay as they are.
SAVE_ADVANCED = "SaveImageAdvanced"
SAVE_ADVANCED_8_BIT = {"format": "png", "format.bit_depth": "8-bit"}
SAVE_ADVANCED_ENDING = ".png"

# Inputs that hold the prefix in classes that do not name it filename_prefix. The job's folder goes
# into the first. ComfyUI lets datasets leave its output folder, so all of these must be literals.
PREFIX_INPUTS = {
    "SaveLoRA": ("prefix",),
    "SaveImageDataSetToFolder": ("folder_name", "filename_prefix"),
    "SaveImageTextDataSetToFolder": ("folder_name", "filename_prefix"),
    "SaveTrainingDataset": ("folder_name",),
    "LoadTrainingDataset": ("folder_name",),
}

# An input for a folder beside the prefix, and its values that mean the output folder.
OWN_FOLDER = "output_path"
NO_FOLDER = ("", ".", "./", "none", "None")
# What a node replaces in a path: ComfyUI's ``%date:...%``, ``[time(...)]`` of WAS.
VARIABLE = ("%", "[")

# Limits of a file name, which a counter and an extension will follow, and of a prefix.
NAME_BYTES, PREFIX_BYTES = 200, 2000


def check_reserved(workflow: Workflow) -> None:
    """Refuse the class and the input that the worker itself puts into workflows.

    Args:
        workflow: the client's after the last edit, before :func:`isolate_outputs`.

    Raises:
        InvalidWorkflow: a node has the class or the input.
    """
    for node_id, node in workflow.items():
        where = {"node_id": brief(node_id), "class_type": brief(node["class_type"])}
        if node["class_type"] == RAW_OUTPUT:
            raise InvalidWorkflow(
                f"node {brief(node_id)}: {RAW_OUTPUT} is the worker's own class; use SaveImage",
                [{**where, "input": None, "problem": "the class is reserved"}],
            )
        if JOB_FOLDER in node["inputs"]:
            raise InvalidWorkflow(
                f"node {brief(node_id)}: {JOB_FOLDER} is the worker's own input; remove it",
                [{**where, "input": JOB_FOLDER, "problem": "the input is reserved"}],
            )


def replace_save_nodes(workflow: Workflow, defs: NodeDefs) -> Workflow:
    """Replace nodes that would encode pictures by our own, which keeps raw pixels.

    Ids, titles and links stay. Where this ComfyUI lacks our node, the workflow stays as it is.

    Args:
        workflow: is not changed.
        defs: the node classes that this ComfyUI has.
    """
    if RAW_OUTPUT not in defs:
        return workflow
    replaced = dict(workflow)
    for node_id, node in workflow.items():
        inputs = _raw_inputs(node)
        if inputs is not None:
            # What a client reads about the node names the class that it sent, not ours.
            meta = {**(node.get("_meta") or {}), "title": title_of(workflow, node_id)}
            own = {"class_type": RAW_OUTPUT, "inputs": inputs, "_meta": meta}
            replaced[node_id] = {**node, **own}
    return replaced


def _raw_inputs(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the inputs of the node of ours that replaces a saving node; None to keep the node."""
    inputs = node["inputs"]
    if node["class_type"] in REPLACED:
        folder_type, prefix = REPLACED[node["class_type"]]
        return {"filename_prefix": prefix, **inputs, "folder_type": folder_type}
    is_8_bit = all(inputs.get(name) == value for name, value in SAVE_ADVANCED_8_BIT.items())
    if node["class_type"] == SAVE_ADVANCED and is_8_bit:
        own = {name: value for name, value in inputs.items() if name.partition(".")[0] != "format"}
        return {**own, "folder_type": "output", "ending": SAVE_ADVANCED_ENDING}
    return None


def isolate_outputs(workflow: Workflow, folder: str, defs: NodeDefs) -> Workflow:
    """Put every ``filename_prefix`` below the job's own folder.

    This keeps jobs apart. It also makes ComfyUI run a saving node again whose file is gone. An
    output node without such a prefix gets the folder in an input that only ComfyUI's cache looks
    at. So does a node that receives more of its job than its inputs, or that calls a paid service:
    its result belongs to one job.

    Args:
        workflow: is not changed.
        folder: the name of the job's folder, without slashes.
        defs: the node classes that this ComfyUI has.

    Raises:
        InvalidValue: a prefix is absolute, climbs with ``..`` or is not a valid file name; or the
            folder of a dataset is computed.
    """
    moved = dict(workflow)
    graph = TypedWorkflow(workflow, defs)
    for node_id, node in workflow.items():
        _check_prefixes(graph, node_id, node)
        changed = _isolating_inputs(node_id, node, folder, defs)
        if changed:
            moved[node_id] = {**node, "inputs": {**node["inputs"], **changed}}
    return moved


def _prefix_inputs(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the inputs that hold the prefix of a node's files."""
    return PREFIX_INPUTS.get(node["class_type"], ("filename_prefix",))


def _check_prefixes(graph: TypedWorkflow, node_id: str, node: Mapping[str, Any]) -> None:
    """Reject prefixes that lead out of the output folder."""
    for name in _prefix_inputs(node):
        text = node["inputs"].get(name)
        is_data = text is not None and node["class_type"] in PREFIX_INPUTS
        if not is_data:
            literal = resolve_literal(graph, Input(node_id, name))
            if literal is not None:
                text = graph.value(literal)
        is_bad = not _stays(text) if isinstance(text, str) else is_data
        if is_bad:
            raise InvalidValue(
                f"{name} of node {node_id} must be a text that stays in the output folder, "
                f"with names of at most {NAME_BYTES} bytes, not '{brief(text)}'",
                [{"node_id": node_id, "input": name, "given": brief(text)}],
            )


def _isolating_inputs(
    node_id: str, node: Mapping[str, Any], folder: str, defs: NodeDefs
) -> dict[str, str]:
    """Return the inputs that put a node's files into the job's folder; none without files."""
    own_folder = _own_folder(node_id, node["inputs"])
    if own_folder is not None:
        return {OWN_FOLDER: f"{folder}/{own_folder}"}
    name = _prefix_inputs(node)[0]
    prefix = node["inputs"].get(name)
    if isinstance(prefix, str):
        # An empty prefix would make the folder itself the name.
        return {name: f"{folder}/{prefix if prefix.strip('./') else 'ComfyUI'}"}
    if node["class_type"] in defs and _is_own(defs[node["class_type"]]):
        return {JOB_FOLDER: folder}
    return {}


def output_folders(workflow: Workflow, folder: str) -> list[str]:
    """List the folders below ComfyUI's output folder that must exist before a workflow runs.

    Nodes of some packs join their prefix to the output folder themselves and make no folder for it.

    Args:
        workflow: the result of :func:`isolate_outputs`.
        folder: the name of the job's folder.
    """
    folders = {folder: None}
    for node in workflow.values():
        own_folder = node["inputs"].get(OWN_FOLDER)
        prefix = node["inputs"].get(_prefix_inputs(node)[0])
        path = prefix if isinstance(prefix, str) else ""
        if isinstance(own_folder, str) and own_folder.startswith(f"{folder}/"):
            path = f"{own_folder}/{path}"
        if path.startswith(f"{folder}/"):
            parts = list(_without_variables(path.split("/")[:-1]))
            folders["/".join(parts)] = None
    return list(folders)


def _own_folder(node_id: str, inputs: Mapping[str, Any]) -> str | None:
    """Return the folder that a node has beside its prefix; None for the output folder itself.

    Raises:
        InvalidValue: the folder leads out of the output folder.
    """
    path = inputs.get(OWN_FOLDER)
    if not isinstance(path, str) or path in NO_FOLDER:
        return None
    if not _stays(path):
        raise InvalidValue(
            f"{OWN_FOLDER} of node {node_id} must be a path within the output folder, "
            f"not '{brief(path)}'",
            [{"node_id": node_id, "input": OWN_FOLDER, "given": brief(path)}],
        )
    return path.strip("/")


def _without_variables(parts: list[str]) -> Iterator[str]:
    """Yield the first parts of a path, up to one that the node will replace."""
    for part in parts:
        if any(sign in part for sign in VARIABLE):
            return
        yield part


def _stays(prefix: str) -> bool:
    """Whether a prefix is valid and stays below its folder."""
    try:
        name = prefix.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    longest_part = max(map(len, name.split(b"/")))
    fits = len(name) <= PREFIX_BYTES and longest_part <= NAME_BYTES
    return fits and b"\0" not in name and not climbs(prefix)


def _is_own(declared: NodeClass) -> bool:
    """Whether the result of a node of this class belongs to one job only."""
    return declared.is_output or declared.is_api or declared.takes_hidden_prompt
