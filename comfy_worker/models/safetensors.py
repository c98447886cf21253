"""Reads the header of a model file and raises the worker's own errors.

The formats are in :mod:`comfy_common.safetensors_header` and :mod:`comfy_common.gguf_header`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_common import gguf_header, safetensors_header
from comfy_common.damaged_model import DamagedModel
from comfy_worker.errors import InvalidValue

__all__ = ["GGUF_SUFFIX", "SUFFIXES", "read_header"]

SUFFIXES = safetensors_header.SUFFIXES
GGUF_SUFFIX = gguf_header.SUFFIX


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the names, dtypes and shapes of the tensors.

    Raises:
        InvalidValue: the file is not of the format that its suffix names, is incomplete, or may not
            be read.
    """
    try:
        if path.suffix.lower() == GGUF_SUFFIX:
            return gguf_header.read_header(path)
        return safetensors_header.read_header(path)
    except DamagedModel as error:
        raise InvalidValue(f"{path.name} {error}; download it again.") from error
    except OSError as error:
        raise InvalidValue(
            f"{path.name} cannot be read ({error.strerror}); make sure that the worker's user may "
            f"read {path}."
        ) from error
