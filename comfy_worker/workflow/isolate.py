"""What saving nodes are told in the graph that is queued: where they write, and which class serves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from comfy_worker.errors import InvalidValue, brief
from comfy_worker.workflow.check.file_access import climbs
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.node_defs import NodeClass, NodeDefs
from comfy_worker.workflow.tracing import Graph, literal_place

__all__ = ["RAW_OUTPUT", "into_folder", "output_folders", "serve_raw"]

RAW_OUTPUT = "ComfyWorkerOutput"
# By the class that it serves: the folder it writes to, and the prefix where the class takes none.
SERVED = {
    "SaveImage": ("output", "ComfyUI"),
    "PreviewImage": ("temp", "ComfyUI_temp"),
    "SaveImageWebsocket": ("output", "ComfyUI"),
}

# Classes that hold their prefix elsewhere, first the input that is to be told the folder. ComfyUI does not keep
# datasets below its output folder, so that all of these must be texts that can be looked at.
NAMES = {
    "SaveLoRA": ("prefix",),
    "SaveImageDataSetToFolder": ("folder_name", "filename_prefix"),
    "SaveImageTextDataSetToFolder": ("folder_name", "filename_prefix"),
    "SaveTrainingDataset": ("folder_name",),
    "LoadTrainingDataset": ("folder_name",),
}

# The folder of nodes that have one beside their prefix. These words and no word mean the output folder.
OWN_FOLDER = "output_path"
NO_FOLDER = ("", ".", "./", "none", "None")
# What a node replaces in a path: ComfyUI's ``%date:...%``, ``[time(...)]`` of WAS.
VARIABLE = ("%", "[")

# What a file's name may have where a node's counter and extension are to follow, and a whole prefix.
NAME_BYTES, PREFIX_BYTES = 200, 2000


def serve_raw(workflow: Workflow, defs: NodeDefs) -> Workflow:
    """The workflow with the nodes that would encode pictures replaced by the one of ours that does not.

    Ids, titles and links stay. Where this ComfyUI lacks our node, so does the workflow.

    Args:
        workflow: stays as it is.
        defs: the node classes that there are.
    """
    if RAW_OUTPUT not in defs:
        return workflow
    served = dict(workflow)
    for node_id, node in workflow.items():
        if node["class_type"] in SERVED:
            kind, prefix = SERVED[node["class_type"]]
            inputs = {"filename_prefix": prefix, **node["inputs"], "kind": kind}
            served[node_id] = {**node, "class_type": RAW_OUTPUT, "inputs": inputs}
    return served


def into_folder(workflow: Workflow, folder: str, defs: NodeDefs) -> Workflow:
    """The workflow with every ``filename_prefix`` below the job's own folder.

    That keeps jobs apart, and a saving node from being taken for cached while its file is gone. An output node
    without such a prefix is told the folder by an input that ComfyUI minds only where it looks for cached results.
    So is a node that sees more of its job than its inputs, or that calls a paid service: what it made of one job
    must not be taken for what it would make of another.

    Args:
        workflow: stays as it is.
        folder: a name, without slashes.
        defs: the node classes that there are.

    Raises:
        InvalidValue: a prefix that is absolute, climbs with ``..`` or can be no file's name, or a dataset's
            folder that is computed.
    """
    moved, graph = dict(workflow), Graph(workflow, defs)
    for node_id, node in workflow.items():
        names = NAMES.get(node["class_type"], ("filename_prefix",))
        for name in names:
            text = node["inputs"].get(name)
            is_data = text is not None and node["class_type"] in NAMES
            literal = None if is_data or text is None else literal_place(graph, Input(node_id, name))
            if literal is not None:
                text = graph.value(literal)
            if not _stays(text) if isinstance(text, str) else is_data:
                raise InvalidValue(
                    f"{name} of node {node_id} must be a text that stays in the output folder, with at most "
                    f"{NAME_BYTES} bytes a name, not '{brief(text)}'",
                    [{"node_id": node_id, "input": name, "given": brief(text)}],
                )
        own_folder = _own_folder(node_id, node["inputs"])
        first = node["inputs"].get(names[0])
        if own_folder is not None:
            changed = {OWN_FOLDER: f"{folder}/{own_folder}"}
        elif isinstance(first, str):
            # A prefix that names nothing would make the folder itself the name.
            changed = {names[0]: f"{folder}/{first if first.strip('./') else 'ComfyUI'}"}
        elif node["class_type"] in defs and _is_own(defs[node["class_type"]]):
            changed = {"comfy_worker_folder": folder}
        else:
            continue
        moved[node_id] = {**node, "inputs": {**node["inputs"], **changed}}
    return moved


def output_folders(workflow: Workflow, folder: str) -> list[str]:
    """The folders below ComfyUI's output folder that must be there before a workflow runs.

    Nodes of some packs join their prefix to the output folder themselves and make no folder for it.

    Args:
        workflow: as :func:`into_folder` gives it.
        folder: the job's.
    """
    found = {folder: None}
    for node in workflow.values():
        names = NAMES.get(node["class_type"], ("filename_prefix",))
        own_folder, prefix = node["inputs"].get(OWN_FOLDER), node["inputs"].get(names[0])
        path = prefix if isinstance(prefix, str) else ""
        if isinstance(own_folder, str) and own_folder.startswith(f"{folder}/"):
            path = f"{own_folder}/{path}"
        if path.startswith(f"{folder}/"):
            parts = list(_without_variables(path.split("/")[:-1]))
            found["/".join(parts)] = None
    return list(found)


def _own_folder(node_id: str, inputs: Mapping[str, Any]) -> str | None:
    """The folder that a node has beside its prefix; None where it is the output folder itself.

    Raises:
        InvalidValue: it leads out of the output folder.
    """
    path = inputs.get(OWN_FOLDER)
    if not isinstance(path, str) or path in NO_FOLDER:
        return None
    if not _stays(path):
        raise InvalidValue(
            f"{OWN_FOLDER} of node {node_id} must be a path within the output folder, not '{brief(path)}'",
            [{"node_id": node_id, "input": OWN_FOLDER, "given": brief(path)}],
        )
    return path.strip("/")


def _without_variables(parts: list[str]) -> Iterator[str]:
    """The first parts of a path, as far as they are what the node will write to."""
    for part in parts:
        if any(sign in part for sign in VARIABLE):
            return
        yield part


def _stays(prefix: str) -> bool:
    """Whether files can be named so below a folder."""
    try:
        name = prefix.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    fits = len(name) <= PREFIX_BYTES and all(len(part) <= NAME_BYTES for part in name.split(b"/"))
    return fits and b"\0" not in name and not climbs(prefix)


def _is_own(declared: NodeClass) -> bool:
    """Whether what a node of this class did is good for its own job only."""
    return declared.is_output or declared.is_api or declared.sees_job
