"""Finds the node packs that did not load, why, and the classes that they would have added.

The pack of a class is the one whose source holds the name of the class in quotes. No pack is
imported here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from comfy_common.import_failures import ImportFailures
from comfy_worker.workflow.node_defs import MissingNodeReason

__all__ = ["NodePacks"]

log = logging.getLogger(__name__)

API_NODES = "comfy_api_nodes"
OURS = "comfy_worker_nodes"


class NodePacks:
    """The node packs of one ComfyUI.

    Args:
        comfyui_dir: ComfyUI's own folder.
        further: folders of packs beside its own.
        api_nodes: whether ComfyUI loads the nodes that call paid services.
    """

    def __init__(self, comfyui_dir: Path, further: tuple[Path, ...], *, api_nodes: bool) -> None:
        self._api_dir = comfyui_dir / API_NODES
        self._api_nodes = api_nodes
        self._folders = (comfyui_dir / "custom_nodes", *further)
        self._failures = ImportFailures()

    @property
    def failed(self) -> dict[Path, str]:
        """By the path of each pack that failed to load, the reason."""
        return self._failures.failed() | self._failures.skipped | self._failures.reasons

    def read_line(self, line: str) -> None:
        """Read a line of ComfyUI's log."""
        pack = self._failures.read_line(line)
        if pack is not None:
            reason = self._failures.reasons[pack]
            log.error(
                "node pack %s failed to load: %s",
                pack.stem,
                reason,
                extra={"action": "pack.failed"},
            )

    def report_missing(self) -> None:
        """Log the packs without nodes, and the packages that packs require and that are missing."""
        for path, reason in self.failed.items():
            if path not in self._failures.reasons:
                log.warning(
                    "node pack %s brought no nodes: %s",
                    path.stem,
                    reason,
                    extra={"action": "pack.without_nodes"},
                )
        for path in self._paths():
            if missing := _missing_packages(path):
                log.warning(
                    "node pack %s needs Python packages that are not installed: %s",
                    path.stem,
                    ", ".join(missing),
                    extra={"action": "pack.incomplete"},
                )

    def explain(self, class_type: str) -> MissingNodeReason | None:
        """Say why a class is missing although its pack is here; None if no pack here has it."""
        if not self._api_nodes and _declares(self._api_dir, class_type):
            return MissingNodeReason(
                "it calls a paid service of comfy.org, and such nodes are off on this endpoint",
                "set API_NODES=true there",
            )
        has_letters = any(character.isalpha() for character in class_type)
        # A bare number stands in quotes for something else.
        packs = self._paths() if has_letters else []
        pack = next((path for path in packs if _names(path, class_type)), None)
        if pack is None:
            return None
        problem = f"its node pack {pack.stem} did not bring it"
        if reason := self.failed.get(pack):
            problem = f"its node pack {pack.stem} failed to load: {reason}"
        remedy = f"fix {pack.stem} on the endpoint"
        if missing := _missing_packages(pack):
            remedy = f"install {', '.join(missing)} beside ComfyUI"
        return MissingNodeReason(problem, remedy, pack.stem)

    def _paths(self) -> list[Path]:
        """List the packs that failed, wherever they are, and all in the known folders."""
        packs = list(self.failed)
        for folder in self._folders:
            if folder.is_dir():
                packs += [path for path in sorted(folder.iterdir()) if _is_pack(path)]
        return list(dict.fromkeys(packs))


def _is_pack(path: Path) -> bool:
    return path.stem != OURS and (path.suffix == ".py" or path.is_dir())


def _names(path: Path, class_type: str) -> bool:
    """Whether a pack's sources hold the name of a class in quotes."""
    quoted = (f'"{class_type}"', f"'{class_type}'")
    return any(class_quoted in source for source in _sources(path) for class_quoted in quoted)


def _declares(path: Path, class_type: str) -> bool:
    """Whether ComfyUI's own sources declare a class: as a schema's node_id, or in a mapping."""
    name = rf"""["']{re.escape(class_type)}["']"""
    pattern = re.compile(rf"(?i:node_id)\s*=\s*{name}|{name}\s*:\s*[A-Z]\w*\s*[,}}]")
    return any(class_type in source and pattern.search(source) for source in _sources(path))


def _sources(path: Path) -> Iterator[str]:
    """The text of a Python file, or of each below a folder; empty for one that cannot be read."""
    return map(_source, [path] if path.is_file() else path.rglob("*.py"))


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _missing_packages(pack: Path) -> list[str]:
    """List the packages of a pack's requirements.txt that are not installed, in any version."""
    try:
        text = (pack / "requirements.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    missing = (_missing_package(line.partition("#")[0].strip()) for line in text.splitlines())
    return [name for name in missing if name]


def _missing_package(line: str) -> str | None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:  # an option of pip, a URL or an empty line
        return None
    try:
        if requirement.marker is None or requirement.marker.evaluate():
            distribution(requirement.name)
    except PackageNotFoundError:
        return requirement.name
    return None
