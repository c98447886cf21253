"""How a placeholder model is told from a real one: by its name, which nothing else looks into."""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "placeholder"


def is_placeholder(file: str) -> bool:
    """Tell whether a model file was made here to stand in for a real one.

    Args:
        file: its name, perhaps behind folders.
    """
    return file.replace("\\", "/").rpartition("/")[2].startswith(PREFIX)


def real_files(files: Iterable[str]) -> list[str]:
    """The files without placeholders; all of them where there is nothing else.

    Args:
        files: names of model files.
    """
    names = list(files)
    return [name for name in names if not is_placeholder(name)] or names
