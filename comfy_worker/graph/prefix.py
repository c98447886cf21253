"""Where saving nodes write: below one folder of the job's own."""

from __future__ import annotations

from comfy_worker.errors import InvalidValue
from comfy_worker.graph.workflow import Workflow

__all__ = ["into_folder"]


def into_folder(workflow: Workflow, folder: str) -> Workflow:
    """The workflow with every ``filename_prefix`` below the job's own folder.

    That keeps jobs apart, and a saving node from being taken for cached while its file is gone.

    Args:
        workflow: stays as it is.
        folder: a name, without slashes.

    Raises:
        InvalidValue: a prefix that is absolute or climbs with ``..``.
    """
    moved = dict(workflow)
    for node_id, node in workflow.items():
        prefix = node["inputs"].get("filename_prefix")
        if isinstance(prefix, str):
            if prefix.startswith(("/", "\\")) or ".." in prefix.replace("\\", "/").split("/"):
                raise InvalidValue(
                    f"filename_prefix of node {node_id} must stay in the output folder, not '{prefix}'",
                    [{"node_id": node_id, "input": "filename_prefix", "given": prefix}],
                )
            moved[node_id] = {**node, "inputs": {**node["inputs"], "filename_prefix": f"{folder}/{prefix}"}}
    return moved
