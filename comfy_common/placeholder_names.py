"""Tells placeholder models from real ones by their file names."""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "placeholder"


def is_placeholder(file: str) -> bool:
    """Whether a model file is a placeholder, which this project made with random weights.

    Args:
        file: its name, with or without folders.
    """
    return file.replace("\\", "/").rpartition("/")[2].startswith(PREFIX)


def real_files(files: Iterable[str]) -> list[str]:
    """The files without placeholders; all files if there are only placeholders.

    Args:
        files: names of model files.
    """
    names = list(files)
    return [name for name in names if not is_placeholder(name)] or names
