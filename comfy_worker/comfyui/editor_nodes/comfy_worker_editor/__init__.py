"""Opens a template in ComfyUI's page; only the command `edit` loads this node pack."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"
NODE_CLASS_MAPPINGS: dict[str, Any] = {}
