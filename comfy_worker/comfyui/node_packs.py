"""Node packs that are there and did not load: which, why, and which classes they would have brought.

What a class belongs to is looked up in the sources of packs, where its name stands in quotes; nothing of a pack is
imported here.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from comfy_common.import_failures import ImportFailures
from comfy_worker.workflow.node_defs import Absence

__all__ = ["NodePacks"]

log = logging.getLogger(__name__)

API_NODES = "comfy_api_nodes"
OURS = "comfy_worker_nodes"


class NodePacks:
    """The node packs of one ComfyUI.

    Args:
        comfyui_dir: ComfyUI's own folder.
        further: folders of packs beside its own.
        api_nodes: whether it was told to load the nodes that call paid services.
    """

    def __init__(self, comfyui_dir: Path, further: tuple[Path, ...], *, api_nodes: bool) -> None:
        self._api_dir = comfyui_dir / API_NODES
        self._api_nodes = api_nodes
        self._folders = (comfyui_dir / "custom_nodes", *further)
        self._failures = ImportFailures()

    @property
    def failed(self) -> dict[Path, str]:
        """Why packs failed to load, by their paths."""
        return self._failures.reasons

    def hear(self, line: str) -> None:
        """Take in a line of ComfyUI's log."""
        pack = self._failures.hear(line)
        if pack is not None:
            why = self._failures.reasons[pack]
            log.error("node pack %s failed to load: %s", pack.stem, why, extra={"action": "pack.failed"})

    def report_missing(self) -> None:
        """Log the packages that packs ask for and that are not installed."""
        for path in self._paths():
            if missing := _missing_packages(path):
                log.warning(
                    "node pack %s needs Python packages that are not installed: %s",
                    path.stem,
                    ", ".join(missing),
                    extra={"action": "pack.incomplete"},
                )

    def explain(self, class_type: str) -> Absence | None:
        """Why a class is not there although its pack is; None where no pack here has it."""
        if not self._api_nodes and _names(self._api_dir, class_type):
            return Absence(
                "it calls a paid service of comfy.org, and such nodes are off on this endpoint",
                "set API_NODES=true there",
            )
        pack = next((path for path in self._paths() if _names(path, class_type)), None)
        if pack is None:
            return None
        why = self.failed.get(pack)
        said = f"its node pack {pack.stem} " + (f"failed to load: {why}" if why else "did not bring it")
        missing = _missing_packages(pack)
        would_do = (
            f"install {', '.join(missing)} beside ComfyUI" if missing else f"mend {pack.stem} on the endpoint"
        )
        return Absence(said, would_do, pack.stem)

    def _paths(self) -> list[Path]:
        """Those that failed, wherever they are, and all in the folders that are known."""
        found = [path for folder in self._folders if folder.is_dir() for path in sorted(folder.iterdir())]
        packs = [path for path in found if path.stem != OURS and (path.suffix == ".py" or path.is_dir())]
        return list(dict.fromkeys((*self.failed, *packs)))


def _names(path: Path, class_type: str) -> bool:
    """Whether a pack's sources hold the name of a class in quotes."""
    quoted = tuple(f"{mark}{class_type}{mark}".encode() for mark in "\"'")
    for file in [path] if path.is_file() else path.rglob("*.py"):
        try:
            source = file.read_bytes()
        except OSError:
            continue
        if any(name in source for name in quoted):
            return True
    return False


def _missing_packages(pack: Path) -> list[str]:
    """What a pack's requirements.txt names and this Python lacks; versions and other machines' packages aside."""
    try:
        lines = (pack / "requirements.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [name for line in lines if (name := _missing_package(line.partition("#")[0].strip()))]


def _missing_package(line: str) -> str | None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:  # an option of pip, a URL, an empty line
        return None
    try:
        if requirement.marker is None or requirement.marker.evaluate():
            distribution(requirement.name)
    except PackageNotFoundError:
        return requirement.name
    return None
