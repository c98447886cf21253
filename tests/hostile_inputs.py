"""Inputs that try to break the worker, or that strangers sent by mistake.

Each must be answered by its own result or by one coded error. The soak mixes them into its jobs.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests import bombs
from tests.graphs import node, txt2img
from tests.pictures import bomb

__all__ = ["built_in", "from_folder"]

PREVIEW = node("PreviewAny", source="a")
SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 2}
EMPTY = node("EmptyImage", width=64, height=64, batch_size=1, color=0)


def built_in() -> dict[str, Any]:
    """Return hostile inputs by name; each is one ``job["input"]``."""
    return {
        **_odd_links(),
        **_odd_values(),
        **_large_inputs(),
        **_odd_pictures(),
        **_wrapped_workflows(),
    }


def from_folder(folder: Path) -> dict[str, Any]:
    """Read further inputs from a folder of JSON files, by file name."""
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: value for name, value in found.items() if isinstance(value, dict)}


def _odd_links() -> dict[str, Any]:
    wrapped = {"__value__": ["1", 0]}
    host_file = node("LoadImage", image="/etc/hostname")
    return {
        "undeclared link to nowhere": {
            "workflow": {"1": node("PreviewAny", source="a", zzz=["77", 0])}
        },
        "link to itself": {"workflow": {"1": node("PreviewAny", source="a", zzz=["1", 0])}},
        "negative slot": {"workflow": {"1": node("PreviewAny", source=["3", -9]), "3": EMPTY}},
        "huge slot": {"workflow": {"1": node("PreviewAny", source=["3", 1e300]), "3": EMPTY}},
        "wrapped link to a host file": {
            "workflow": {"1": host_file, "2": node("PreviewImage", images=wrapped)}
        },
        "link with a false slot": {
            "workflow": {"1": host_file, "2": node("PreviewImage", images=["1", False])}
        },
        "wrapped link by overrides": {
            "workflow": {"1": host_file, "2": PREVIEW},
            "overrides": {"2.source": wrapped},
        },
        "circle": {
            "workflow": {
                "1": node("ImageInvert", image=["3", 0]),
                "3": node("ImageInvert", image=["1", 0]),
                "2": node("PreviewImage", images=["1", 0]),
            }
        },
        "folder of the machine": {
            "workflow": {
                "1": node("LoadImageDataSetFromFolder", folder="/etc"),
                "2": node("PreviewImage", images=["1", 0]),
            }
        },
    }


def _odd_values() -> dict[str, Any]:
    nested: Any = 1
    for _ in range(900):
        nested = [nested]
    return {
        "seed of 400 digits": {"prompt": "x", "seed": int("9" * 400)},
        "steps in words": {"prompt": "x", "steps": "many"},
        "deep override": {"workflow": {"1": PREVIEW}, "overrides": {"1.source": nested}},
        "half a surrogate pair": {
            "workflow": '{"\\ud800": {"class_type": "PreviewAny", "inputs": {}}}'
        },
        "unknown key": {"prompt": "x", "promt": "y"},
        "a key that is an error code": {**SMALL, "comfy_org_api_key": "INVALID_INPUT"},
        "input is a list": [1, 2, 3],
        "batch that is too large": {"prompt": "x", "overrides": {"4.batch_size": 4096}},
        "forged log line": {"prompt": "x\nERROR forged", "nope\nERROR forged": 1},
    }


def _large_inputs() -> dict[str, Any]:
    chain = {
        str(number): node("ImageInvert", image=[str(number - 1), 0]) for number in range(1, 2000)
    }
    return {
        "a million blanks": {"prompt": "<lora:x:1>a" + " " * 1_000_000 + "b"},
        "long chain": {"workflow": {"0": EMPTY, **chain}},
        "unknown classes": {"workflow": {str(n): node(f"NoSuchClass{n}") for n in range(2000)}},
        "many unknown keys": {f"key{number}": 1 for number in range(20_000)},
        "open braces": {**SMALL, "prompt": "{a|" * 4000},
    }


def _odd_pictures() -> dict[str, Any]:
    def sent(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return {
        "bomb": {"prompt": "x", "image": sent(bomb())},
        "text as a picture": {"prompt": "x", "image": sent(b"no picture at all")},
        "JPEG of many scans": {"prompt": "x", "image": sent(bombs.jpeg_of_scans(1024, 1000))},
    }


def _wrapped_workflows() -> dict[str, Any]:
    plain = txt2img()
    return {
        "workflow under prompt": {"prompt": plain},
        "body of /prompt": {"workflow": {"prompt": plain, "client_id": "a"}},
        "encoded twice": {"workflow": json.dumps(json.dumps(plain))},
    }
