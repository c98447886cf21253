"""An endpoint with the page and an API key, whose worker only lists one template; no ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_common.page_catalog import CATALOG_VARIABLE
from comfy_local.endpoint import Address, LocalEndpoint

__all__ = ["CATALOG", "KEY", "let_it_start", "page_endpoint"]

KEY = "a key"
CATALOG: dict[str, Any] = {
    "templates": [
        {
            "name": "txt2img",
            "title": "</script><b>: text to image",
            "description": "Makes an image.",
            "missing": [],
            "schema": {"type": "object", "properties": {"prompt": {"type": "string"}}},
        }
    ],
    "files": {"loras": ["a.safetensors"]},
}
HANDLER = f"""
import json, os, pathlib, time
go = pathlib.Path(__file__).with_name("go")
while not go.exists():
    time.sleep(0.02)
file = pathlib.Path(os.environ[{CATALOG_VARIABLE!r}])
part = file.with_suffix(".part")
part.write_text(json.dumps({CATALOG!r}))
part.replace(file)
time.sleep(600)
"""


@contextmanager
def page_endpoint(folder: Path) -> Iterator[LocalEndpoint]:
    """Run the endpoint until the block ends. Its worker starts when the test lets it."""
    handler = folder / "handler.py"
    handler.write_text(HANDLER)
    address = Address(api_key=KEY)
    with LocalEndpoint(address=address, handler=handler, log_path=folder / "log") as endpoint:
        yield endpoint


def let_it_start(folder: Path) -> None:
    """Let the worker list its template."""
    (folder / "go").touch()
