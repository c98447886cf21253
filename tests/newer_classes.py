"""The node classes of ComfyUI 0.33, and the newer ones that templates use.

``tests/comfyui/newer_node_packs`` declares the newer ones. ``exports/newer-classes.json`` holds what
ComfyUI 0.33 answers for them in ``/object_info``; ``python -m tests.newer_classes`` records it.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.official_templates import COMFYUI_033, EXPORTS

__all__ = ["NEWER_CLASSES", "object_info"]

CLASSES_FILE = EXPORTS / "newer-classes.json"
NEWER_CLASSES: dict[str, Any] = json.loads(CLASSES_FILE.read_text(encoding="utf-8"))


def object_info() -> dict[str, Any]:
    """Return a copy of the declarations, by class."""
    info = copy.deepcopy(COMFYUI_033.object_info) | NEWER_CLASSES
    info["CLIPLoader"]["input"]["required"]["type"][0].append("flux3")
    return info


def _record() -> None:
    """Record the newer classes as the ComfyUI of the tests declares them."""
    import os

    import requests

    from comfy_common.paths import comfyui_dir
    from tests.frontend import NEWER_PACKS, running_comfyui

    with running_comfyui(comfyui_dir(os.environ), NEWER_PACKS) as url:
        info = requests.get(f"{url}/object_info", timeout=60).json()
    packs = {f"custom_nodes.{pack.name}" for pack in NEWER_PACKS.iterdir()}
    newer = {
        name: declared for name, declared in info.items() if declared["python_module"] in packs
    }
    text = json.dumps(dict(sorted(newer.items())), indent=1)
    CLASSES_FILE.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    _record()
