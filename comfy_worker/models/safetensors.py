"""Reads the header of a safetensors file and raises the worker's own errors.

The format itself is in :mod:`comfy_common.safetensors_header`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_common import safetensors_header
from comfy_worker.errors import InvalidValue

__all__ = ["read_header"]


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the names, dtypes and shapes of the tensors.

    Raises:
        InvalidValue: the file is not a safetensors file, is incomplete, or may not be read.
    """
    try:
        return safetensors_header.read_header(path)
    except safetensors_header.DamagedModel as error:
        raise InvalidValue(f"{path.name} {error}; download it again.") from error
    except OSError as error:
        raise InvalidValue(
            f"{path.name} cannot be read ({error.strerror}); make sure that the worker's user may read {path}."
        ) from error
