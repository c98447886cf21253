"""Finds the files that a start needs first: torch's libraries, and the models of one template.

Imports neither torch nor anything else that takes long: the files are read while Python imports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["model_files_of", "torch_libraries"]

MODEL_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
# Without a GPU torch loads only these of its own libraries' bytes.
CPU_LIBRARIES = ("libtorch_cpu.so", "libtorch_python.so", "libc10.so", "libtorch.so")
# What every CUDA program of torch's loads; the others are loaded when a kernel asks for them.
CUDA_LIBRARIES = ("libtorch_cuda.so", "libc10_cuda.so", "libcudart", "libcublas.so", "libcublasLt")
MOST_TEXTS = 100_000


def torch_libraries(*, has_gpu: bool) -> list[Path]:
    """List the libraries that ``import torch`` loads; empty if torch is not installed.

    Args:
        has_gpu: whether those for CUDA are needed too.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return []
    packages = Path(spec.origin).parent.parent
    folders = [packages / "torch" / "lib"]
    names: tuple[str, ...] = CPU_LIBRARIES
    if has_gpu:
        folders += sorted(packages.glob("nvidia/*/lib"))
        names += CUDA_LIBRARIES
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    return [file for file in files if file.name.startswith(names)]


def model_files_of(
    name: str, workflow_folders: Sequence[Path], model_roots: Sequence[Path]
) -> list[Path]:
    """List the model files that a template names and that are installed.

    Args:
        name: the template's, as requests name it.
        workflow_folders: searched in order.
        model_roots: folders that hold ``checkpoints/``, ``loras/`` ...
    """
    files: dict[Path, None] = {}
    for text in _texts_of(name, workflow_folders):
        if text.lower().endswith(MODEL_SUFFIXES):
            files.update(dict.fromkeys(_installed(text, model_roots)))
    return list(files)


def _texts_of(name: str, workflow_folders: Sequence[Path]) -> Iterator[str]:
    """Yield all texts in the files of a template; nothing for a file that cannot be read."""
    for folder in workflow_folders:
        if not (folder / f"{name}.json").is_file():
            continue
        for file in (folder / f"{name}.json", folder / f"{name}.params.json"):
            try:
                value = json.loads(file.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError):
                continue  # the run itself says what is wrong with it
            yield from _texts_in(value)
        return


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value, without recursion."""
    waiting = [value]
    for _ in range(MOST_TEXTS):
        if not waiting:
            return
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _installed(name: str, model_roots: Sequence[Path]) -> Iterable[Path]:
    """Find a model file in the folders of each root; its first place counts, as in ComfyUI."""
    relative = Path(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        return []
    for root in model_roots:
        if not root.is_dir():
            continue
        found = [folder / relative for folder in root.iterdir() if (folder / relative).is_file()]
        if found:
            return found
    return []
