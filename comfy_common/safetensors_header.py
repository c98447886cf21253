"""Reads the header of a safetensors file: names, dtypes and shapes of its tensors, and nothing else of it.

It knows the file format (8 bytes of length, then JSON, then the data) and no model family.  The one home of what
makes a model file whole, for `comfy_setup` and `comfy_worker`.  Standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUFFIXES = {".safetensors", ".sft"}
MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts


class DamagedModel(Exception):
    """A model file that is none, or not all of it; the words go behind its name: "is cut short ..."."""


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tensors' names, dtypes and shapes out of a safetensors file.

    Args:
        path: the file.

    Returns:
        `{name: {"dtype": "F16", "shape": [320, 4, 3, 3], "data_offsets": [0, 23040]}}`, without the metadata.

    Raises:
        DamagedModel: it is no safetensors file (a web page, a pickle), is cut short, or longer than it says.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > MAX_HEADER_BYTES:
            raise DamagedModel(f"is no safetensors file but {_found(start)}")
        text = start[8:] + file.read(length - 1)
    if len(text) < length:
        raise DamagedModel("is cut short in its header")
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        if not all(isinstance(dim, int) for tensor in header.values() for dim in tensor["shape"]):
            raise TypeError("a shape that is no list of integers")
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DamagedModel("has a damaged safetensors header") from error
    if size != 8 + length + end:
        how = "cut short" if size < 8 + length + end else "longer than its header says"
        raise DamagedModel(f"is {how}: {size} of {8 + length + end} bytes")
    return header


def check_whole(path: Path, suffix: str) -> None:
    """Make sure that a model file has all its bytes, as far as its format says.

    Args:
        path: a model file of any format.
        suffix: what its name ends in, or will.

    Raises:
        DamagedModel: it is empty; for safetensors also whatever :func:`read_header` finds.
        OSError: it cannot be read.
    """
    if suffix.lower() in SUFFIXES:
        read_header(path)
    elif path.stat().st_size == 0:
        raise DamagedModel("is empty")


def _found(start: bytes) -> str:
    if not start:
        return "empty"
    if start.lstrip()[:1] == b"<":
        return "a web page"
    if start[:2] == b"PK":
        return "a zip archive (as .ckpt and .pt files are)"
    if start[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}:
        return "a pickle (.ckpt or .pt)"
    return "something else"
