"""Reads the header of a safetensors file, and checks that a model file of any format is complete.

A safetensors file is 8 bytes with the header's length, then the header as JSON, then the data.
Standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfy_common import gguf_header
from comfy_common.damaged_model import DamagedModel, content_name

__all__ = ["SUFFIXES", "DamagedModel", "check_whole", "read_header", "read_tensor"]

SUFFIXES = {".safetensors", ".sft"}
MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts
LARGEST_NUMBER = 1 << 63
# A tensor takes about eight values. Without a limit, parsing a header of 100 MB would take
# gigabytes.
MAX_VALUES = 2_000_000


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tensors' names, dtypes and shapes from a safetensors file.

    Args:
        path: the file.

    Returns:
        `{name: {"dtype": "F16", "shape": [320, 4, 3, 3], "data_offsets": [0, 23040]}}`, without the
        metadata.

    Raises:
        DamagedModel: the file is not a safetensors file (but a web page or a pickle, for example),
            is cut short, or is longer than its header says.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > MAX_HEADER_BYTES:
            raise DamagedModel(f"is not a safetensors file but {content_name(start)}")
        text = start[8:] + file.read(length - 1)
    if len(text) < length:
        raise DamagedModel("is cut short in its header")
    if text.count(b",") > MAX_VALUES:
        raise DamagedModel("has a safetensors header with more values than any model has")
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        end = max(map(_end_of, header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        # The error itself is not shown, since it may quote a number with thousands of digits.
        raise DamagedModel("has a damaged safetensors header") from None
    if size != 8 + length + end:
        how = "cut short" if size < 8 + length + end else "longer than its header says"
        raise DamagedModel(f"is {how}: {size} of {8 + length + end} bytes")
    return header


def read_tensor(path: Path, tensor: dict[str, Any], limit: int) -> bytes:
    """Read the bytes of one tensor.

    Args:
        path: the safetensors file.
        tensor: its entry in the header.
        limit: a longer tensor is cut at this number of bytes.

    Raises:
        OSError: the file cannot be read.
    """
    begin, end = tensor["data_offsets"]
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        file.seek(8 + header_bytes + begin)
        return file.read(min(end - begin, limit))


def _end_of(tensor: dict[str, Any]) -> int:
    """Where a tensor's bytes end, counted from the end of the header.

    Raises:
        TypeError: the tensor is not described as the format requires.
        KeyError: the same.
        ValueError: the same.
    """
    begin, end = tensor["data_offsets"]
    if not isinstance(tensor["dtype"], str) or not isinstance(tensor["shape"], list):
        raise TypeError("a tensor without dtype or shape")
    for number in (begin, end, *tensor["shape"]):
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError("a number that is not an integer")
        if not 0 <= number < LARGEST_NUMBER:
            raise ValueError("a number that is too large for any file")
    if begin > end:
        raise ValueError("a tensor that ends before it begins")
    return int(end)


def check_whole(path: Path, suffix: str) -> None:
    """Make sure that a model file is complete, as far as its format shows.

    Args:
        path: a model file of any format.
        suffix: the suffix of the file's final name.

    Raises:
        DamagedModel: the file is empty, or :func:`read_header` raises it.
        OSError: the file cannot be read.
    """
    if suffix.lower() in SUFFIXES:
        read_header(path)
    elif suffix.lower() == gguf_header.SUFFIX:
        gguf_header.read_header(path)
    elif path.stat().st_size == 0:
        raise DamagedModel("is empty")
