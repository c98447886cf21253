"""Tells placeholder models and the toy model from real ones by their file names."""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "placeholder"
TOY_CHECKPOINT = "comfy-worker-toy.safetensors"
TOY_LORA = "comfy-worker-toy-outline.safetensors"


def is_placeholder(file: str) -> bool:
    """Whether a model file is a placeholder, which this project made with random weights.

    Args:
        file: its name, with or without folders.
    """
    return _file_name(file).startswith(PREFIX)


def is_toy(file: str) -> bool:
    """Whether a model file is this project's toy checkpoint, which draws coloured shapes.

    Args:
        file: its name, with or without folders. A user's own `toy.safetensors` is a real model.
    """
    return _file_name(file) == TOY_CHECKPOINT


def is_real(file: str) -> bool:
    """Whether a model file is neither a placeholder nor the toy.

    Args:
        file: its name, with or without folders.
    """
    return not is_placeholder(file) and not is_toy(file)


def real_files(files: Iterable[str]) -> list[str]:
    """The real files; the toy if there is no real file; else all files, which are placeholders.

    Args:
        files: names of model files.
    """
    names = list(files)
    real = [name for name in names if is_real(name)]
    return real or [name for name in names if is_toy(name)] or names


def _file_name(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]
