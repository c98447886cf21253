"""Checks the workflow of a job, and puts names of files in the place of references to assets."""

from __future__ import annotations

import base64
from pathlib import PurePosixPath
from typing import Any

from .assets import Asset, AssetStore
from .errors import ApiError

__all__ = ["AssetFiles", "checked_workflow"]

ASSET_TYPE = "core/ASSET"
# References stand in the inputs of nodes, or in lists there.
MAX_DEPTH = 8
MAX_SUFFIX = 10


def checked_workflow(value: object) -> dict[str, Any]:
    """Returns the workflow of a request, in API format.

    Raises:
        ApiError: It is missing, in UI format, or has entries that are not nodes.
    """
    if not isinstance(value, dict) or not value:
        raise ApiError(422, "invalid_workflow", "`workflow` must be a workflow in API format")
    if isinstance(value.get("nodes"), list):
        raise ApiError(
            422,
            "workflow_format_ui",
            "this is a workflow in UI format; export it in API format",
        )
    faults = {}
    for node_id, node in value.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            faults[node_id[:100]] = [{"field": "class_type", "reason": "missing_class_type"}]
        elif not isinstance(node.get("inputs", {}), dict):
            faults[node_id[:100]] = [{"field": "inputs", "reason": "not_an_object"}]
    if faults:
        first, problems = next(iter(faults.items()))
        reason = "has no class_type"
        if problems[0]["field"] == "inputs":
            reason = "has `inputs` that are not an object"
        raise ApiError(422, "invalid_workflow", f"node {first} {reason}", node_errors=faults)
    return value


class AssetFiles:
    """The files that a workflow refers to, in the form that a worker takes them.

    Args:
        assets: The assets of the endpoint.
    """

    def __init__(self, assets: AssetStore) -> None:
        self._assets = assets
        self._used: dict[str, Asset] = {}
        self._missing: list[str] = []

    def named_in(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Returns the workflow with the names of files in the place of references.

        Raises:
            ApiError: A reference is malformed, or there is no such asset.
        """
        named = {}
        for node_id, node in workflow.items():
            inputs = {}
            for name, value in node.get("inputs", {}).items():
                inputs[name] = self._replaced(value, MAX_DEPTH)
            named[node_id] = {**node, "inputs": inputs}
        if self._missing:
            listed = ", ".join(self._missing)
            raise ApiError(
                422,
                "missing_asset",
                f"there is no asset {listed}; upload the file",
                missing_ids=self._missing,
            )
        return named

    def images(self) -> list[dict[str, str]]:
        """Returns the entries of the worker's key `images`."""
        entries = []
        for asset in self._used.values():
            source = asset.link or ""
            if asset.path is not None:
                source = base64.b64encode(asset.path.read_bytes()).decode()
            entries.append({"name": _file_name(asset), "image": source})
        return entries

    def _replaced(self, value: Any, depth: int) -> Any:
        if isinstance(value, list) and depth:
            return [self._replaced(entry, depth - 1) for entry in value]
        if not isinstance(value, dict) or not depth:
            return value
        if value.get("__type") != ASSET_TYPE:
            return {key: self._replaced(entry, depth - 1) for key, entry in value.items()}
        info = value.get("info")
        asset_id = info.get("id") if isinstance(info, dict) else None
        if not isinstance(asset_id, str):
            self._missing.append("without `info.id`")
            return value
        try:
            asset = self._used.setdefault(asset_id, self._assets.get(asset_id))
        except ApiError:
            self._missing.append(asset_id[:100])
            return value
        return _file_name(asset)


def _file_name(asset: Asset) -> str:
    """A name that no other asset has, with the suffix of the client's name."""
    suffix = PurePosixPath(asset.info.file_path).suffix[:MAX_SUFFIX]
    return f"asset-{asset.asset_id}{suffix}"
