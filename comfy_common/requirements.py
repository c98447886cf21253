"""Compares a requirements.txt with the installed packages of the running Python.

`python -m comfy_common.requirements FILE...` does so for another Python. This needs `packaging`,
which the virtual environment has, and the system's Python may lack.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# ComfyUI's editor. A headless ComfyUI never opens it, so a newer release than required will do.
EDITOR_PACKAGES = {
    "comfyui-frontend-package",
    "comfyui-workflow-templates",
    "comfyui-embedded-docs",
}


@dataclass(frozen=True)
class Unmet:
    """A requirement that the installed packages do not meet.

    Args:
        requirement: as the file says, such as "av>=16.0.0".
        installed: the installed version; empty if the package is missing.
    """

    requirement: str
    installed: str

    def __str__(self) -> str:
        """Write it as "av>=16.0.0 (14.2.0 is installed)"."""
        found = f"{self.installed} is" if self.installed else "not"
        return f"{self.requirement} ({found} installed)"


def unmet_requirements(file: Path) -> list[Unmet]:
    """List the requirements of a file that the running Python's packages do not meet.

    Args:
        file: a requirements.txt; a missing file has no requirements.

    Returns:
        The unmet requirements in order. Lines without a package (options, bare URLs) are skipped.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            requirement = Requirement(line.partition(" #")[0].strip())
        except InvalidRequirement:  # also for an empty line or a comment
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            unmet = _unmet(requirement)
            found += [unmet] if unmet else []
    return found


def _unmet(requirement: Requirement) -> Unmet | None:
    """Compare a requirement with the installed package; None if it is met."""
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    allowed = requirement.specifier
    if canonicalize_name(requirement.name) in EDITOR_PACKAGES:
        allowed = SpecifierSet(str(allowed).replace("==", ">="))
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return Unmet(str(requirement), "")
    if allowed.contains(installed, prereleases=True):
        return None
    return Unmet(str(requirement), installed)


def summary(unmet: list[Unmet], most: int = 5) -> str:
    """Name unmet requirements in one line.

    Args:
        unmet: the result of :func:`unmet_requirements`.
        most: how many to name; the others are counted.
    """
    named = ", ".join(map(str, unmet[:most]))
    rest = len(unmet) - most
    return f"{named} and {rest} more" if rest > 0 else named


def install_command(comfyui_dir: Path | None = None) -> str:
    """The command that installs the requirements of a ComfyUI.

    Args:
        comfyui_dir: a ComfyUI that the user has installed; None for the one of this project.
    """
    option = f" --comfyui-dir {shlex.quote(str(comfyui_dir))}" if comfyui_dir else ""
    return f"python3 -m comfy_setup install{option}"


if __name__ == "__main__":
    for index, file in enumerate(sys.argv[1:]):
        for entry in unmet_requirements(Path(file)):
            sys.stdout.write(f"{index}\t{entry.requirement}\t{entry.installed}\n")
