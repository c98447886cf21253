"""Compares a requirements.txt with the packages that are installed.

It looks at the packages of the Python that runs it, so `python -m comfy_common.requirements FILE` lets another
Python tell what it lacks. The virtual environment's Python has `packaging`; the system's need not.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# ComfyUI's editor. A headless ComfyUI never opens it, so a newer release than the one asked for will do.
EDITOR_PACKAGES = {"comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs"}


@dataclass(frozen=True)
class Unmet:
    """A requirement that the installed packages do not meet.

    Args:
        requirement: as it stands in the file, such as "av>=16.0.0".
        installed: the version that is installed; empty if none is.
    """

    requirement: str
    installed: str

    def __str__(self) -> str:
        """Write it as "av>=16.0.0 (14.2.0 is installed)"."""
        return f"{self.requirement} ({self.installed + ' is' if self.installed else 'not'} installed)"


def unmet_requirements(file: Path) -> list[Unmet]:
    """List the requirements of a file that the running Python's packages do not meet.

    Args:
        file: a requirements.txt; one that is missing asks for nothing.

    Returns:
        Those requirements in order. Lines that name no package (options, bare URLs) are passed over.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            requirement = Requirement(line.partition(" #")[0].strip())
        except InvalidRequirement:  # an empty line and a comment too
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        allowed = requirement.specifier
        if canonicalize_name(requirement.name) in EDITOR_PACKAGES:
            allowed = SpecifierSet(str(allowed).replace("==", ">="))
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            found.append(Unmet(str(requirement), ""))
            continue
        if not allowed.contains(installed, prereleases=True):
            found.append(Unmet(str(requirement), installed))
    return found


def summary(unmet: list[Unmet], most: int = 5) -> str:
    """Name unmet requirements in one line.

    Args:
        unmet: what :func:`unmet_requirements` found.
        most: how many are named; the rest is counted.
    """
    rest = len(unmet) - most
    return ", ".join(map(str, unmet[:most])) + (f" and {rest} more" if rest > 0 else "")


def install_command(comfyui_dir: Path | None = None) -> str:
    """Give the command that installs what a ComfyUI asks for.

    Args:
        comfyui_dir: a ComfyUI of the user's own; None for the one that the command brings.
    """
    option = f" --comfyui-dir {shlex.quote(str(comfyui_dir))}" if comfyui_dir else ""
    return f"python3 -m comfy_setup install{option}"


if __name__ == "__main__":
    for entry in unmet_requirements(Path(sys.argv[1])):
        sys.stdout.write(f"{entry.requirement}\t{entry.installed}\n")
