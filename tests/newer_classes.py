"""The node classes of ComfyUI 0.33, and the newer ones that templates use.

``tests/comfyui/newer_node_packs`` declares the newer ones. ``exports/newer-classes.json`` holds what
ComfyUI 0.33 answers for them in ``/object_info``.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.official_templates import COMFYUI_033, EXPORTS

__all__ = ["NEWER_CLASSES", "object_info"]

NEWER_CLASSES: dict[str, Any] = json.loads(
    (EXPORTS / "newer-classes.json").read_text(encoding="utf-8")
)


def object_info() -> dict[str, Any]:
    """Return a copy of the declarations, by class."""
    info = copy.deepcopy(COMFYUI_033.object_info) | NEWER_CLASSES
    info["CLIPLoader"]["input"]["required"]["type"][0].append("flux3")
    return info
