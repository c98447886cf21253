"""A node for tests: it shows the key for comfy.org that came with the prompt."""

from __future__ import annotations

from typing import Any


class ShowKey:
    """What the nodes that call paid services do with the key first."""

    RETURN_TYPES = ()
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's own name
        """No input but the hidden one."""
        return {"required": {}, "hidden": {"key": "API_KEY_COMFY_ORG"}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802 - ComfyUI's own name
        """Never the same: ComfyUI's cache knows nothing of the key."""
        return float("nan")

    def show(self, key: str | None = None) -> dict[str, Any]:
        """Report the key as a text."""
        return {"ui": {"text": [str(key)]}}


NODE_CLASS_MAPPINGS = {"ShowKey": ShowKey}
