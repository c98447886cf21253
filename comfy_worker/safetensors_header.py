"""Reads the header of a safetensors file: names, dtypes and shapes of its tensors, and nothing else of it.

It knows the file format (8 bytes of length, then JSON, then the data) and no model family.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfy_worker.errors import InvalidValue

__all__ = ["read_header"]

MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tensors' names, dtypes and shapes out of a safetensors file.

    Args:
        path: the file.

    Returns:
        ``{name: {"dtype": "F16", "shape": [320, 4, 3, 3], "data_offsets": [0, 23040]}}``, without the metadata.

    Raises:
        InvalidValue: it is no safetensors file (a web page, a pickle), it is cut short, or it may not be read.
    """
    try:
        size, file = path.stat().st_size, path.open("rb")
    except OSError as error:
        raise InvalidValue(
            f"{path.name} cannot be read ({error.strerror}); see that the worker's user may read {path}."
        ) from error
    with file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > MAX_HEADER_BYTES:
            raise InvalidValue(_no_safetensors(path, start))
        text = start[8:] + file.read(length - 1)
    if len(text) < length:
        raise InvalidValue(f"{path.name} is cut short in its header; download it again.")
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        if not all(isinstance(dim, int) for tensor in header.values() for dim in tensor["shape"]):
            raise TypeError("a shape that is no list of integers")
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InvalidValue(f"{path.name} has a damaged safetensors header; download it again.") from error
    if size < 8 + length + end:
        raise InvalidValue(
            f"{path.name} is cut short: {size} of {8 + length + end} bytes are there; download it again."
        )
    return header


def _no_safetensors(path: Path, start: bytes) -> str:
    if not start:
        found = "empty"
    elif start.lstrip()[:1] == b"<":
        found = "a web page"
    elif start[:2] in {b"PK", b"\x80\x02", b"\x80\x04"}:
        found = "a pickle (.ckpt or .pt)"
    else:
        found = "something else"
    return f"{path.name} is no safetensors file but {found}; download it again."
