"""Model files: which are there, which models.txt names, and the placeholder for a machine that has none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from comfy_setup import paths
from comfy_setup.console import Console, SetupError, size
from comfy_setup.models_txt import MODELS_TXT, parse_models

# What ComfyUI takes for a model file.
SUFFIXES = {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf"}
SAFETENSORS = {".safetensors", ".sft"}
PLACEHOLDER = Path("checkpoints") / "placeholder-sd15.safetensors"


def search_roots(environ: Mapping[str, str]) -> list[Path]:
    """Say where models are looked for: the model roots, and ComfyUI's own folder.

    Args:
        environ: may hold MODELS_DIR and COMFYUI_DIR.
    """
    return [*paths.model_roots(environ), paths.comfyui_dir(environ) / "models"]


def model_files(environ: Mapping[str, str]) -> dict[str, list[Path]]:
    """Find the model files.

    Args:
        environ: may hold MODELS_DIR and COMFYUI_DIR.

    Returns:
        Files by folder (`checkpoints`, `loras`, ...), folders without any left out.
    """
    found: dict[str, list[Path]] = {}
    for root in search_roots(environ):
        for path in sorted(root.rglob("*")):
            folder = path.relative_to(root).parts[0]
            if path.suffix in SUFFIXES and folder != path.name and path.is_file():
                found.setdefault(folder, []).append(path)
    return dict(sorted(found.items()))


def is_placeholder(path: Path) -> bool:
    """Tell whether a model file is one that was made here to stand in for a real one.

    Args:
        path: a model file.
    """
    return path.name.startswith("placeholder")


def is_whole(path: Path) -> bool:
    """Tell whether a model file has all its bytes, as far as its format says.

    Args:
        path: a model file.

    Returns:
        False if it is empty or cannot be read; for safetensors also if the header is damaged, or names data beyond
        the file's end.
    """
    try:
        total = path.stat().st_size
        if path.suffix not in SAFETENSORS:
            return total > 0
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, total)))
        header.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError):
        return False
    return total >= 8 + length + end


def ensure_checkpoint(console: Console, environ: Mapping[str, str]) -> bool:
    """Make the placeholder checkpoint if there is no checkpoint; only inside the virtual environment.

    Args:
        console: told what it is, and how to get real weights.
        environ: may hold MODELS_DIR and COMFYUI_DIR.

    Returns:
        Whether there is nothing but placeholders.
    """
    checkpoints = model_files(environ).get("checkpoints", [])
    if any(not is_placeholder(path) for path in checkpoints):
        return False
    root = paths.model_roots(environ)[0]
    if not checkpoints:
        from comfy_setup.placeholder import write_checkpoint

        with console.step(f"Making a placeholder checkpoint, {root / PLACEHOLDER}"):
            write_checkpoint(root / PLACEHOLDER)
    console.say(
        "The only checkpoint here is a placeholder with random weights: its pictures are noise that proves"
    )
    console.say(f"the pipeline. For real ones put a .safetensors file into {root / 'checkpoints'};")
    console.say("models.txt says where the usual ones come from.")
    return True


def list_models(environ: Mapping[str, str], only: list[str]) -> int:
    """Print which model files are there and which of models.txt are missing.

    Args:
        environ: may hold MODELS_DIR and COMFYUI_DIR.
        only: sections of models.txt to look at, empty for all.

    Returns:
        1 if a file of a section in `only` is missing, else 0.

    Raises:
        SetupError: models.txt cannot be read, or has no such section.
    """
    found = model_files(environ)
    for folder, files in found.items():
        print(f"{folder}: {len(files)} files, {size(sum(path.stat().st_size for path in files))}")
        for path in files:
            print(f"  {size(path.stat().st_size):>8}  {path}")
    if not found:
        print(f"No model files in {', '.join(str(root) for root in search_roots(environ))}.")
    entries = parse_models(MODELS_TXT.read_text(encoding="utf-8")) if MODELS_TXT.is_file() else []
    sections = {entry.section for entry in entries}
    if unknown := [name for name in only if name not in sections]:
        raise SetupError(f"models.txt has no section {unknown[0]}: it has {', '.join(sorted(sections)) or 'none'}")
    missing = 0
    for entry in entries:
        if only and entry.section not in only:
            continue
        if any((root / entry.path).is_file() for root in search_roots(environ)):
            print(f"present  [{entry.section}] {entry.path}")
        else:
            missing += 1
            print(f"missing  [{entry.section}] {entry.path}  {entry.url}")
    if missing:
        print(f"{missing} missing. This command does not download yet: fetch them into the named folders by hand,")
        print(f"under {paths.model_roots(environ)[0]}.")
    return 1 if only and missing else 0
