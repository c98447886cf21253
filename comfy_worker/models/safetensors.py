"""The header of a safetensors file, with the worker's own errors; the format's home is ``comfy_setup``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_common import safetensors_header
from comfy_worker.errors import InvalidValue

__all__ = ["read_header"]


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tensors' names, dtypes and shapes, as :func:`comfy_common.safetensors_header.read_header` does.

    Raises:
        InvalidValue: it is no safetensors file, is not whole, or may not be read.
    """
    try:
        return safetensors_header.read_header(path)
    except safetensors_header.DamagedModel as error:
        raise InvalidValue(f"{path.name} {error}; download it again.") from error
    except OSError as error:
        raise InvalidValue(
            f"{path.name} cannot be read ({error.strerror}); see that the worker's user may read {path}."
        ) from error
