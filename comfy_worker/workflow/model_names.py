"""Finds the installed file that a client's name for a model means, in ComfyUI's list of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_common.placeholder_names import real_files
from comfy_worker.errors import Ambiguous, ModelNotFound, brief
from comfy_worker.nearest import nearest

__all__ = ["FOLDERS", "is_model", "match", "nearest_files", "spellings"]

# The model folder of each kind of model file.
FOLDERS = {
    "checkpoint": "checkpoints",
    "controlnet": "controlnet",
    "diffusion model": "diffusion_models",
    "lora": "loras",
    "text encoder": "text_encoders",
    "upscaler": "upscale_models",
    "vae": "vae",
}
MODEL_SUFFIXES = (
    ".safetensors",
    ".sft",
    ".ckpt",
    ".pt",
    ".pt2",
    ".pth",
    ".bin",
    ".pkl",
    ".gguf",
    ".onnx",
)


def is_model(value: Any) -> bool:
    """Whether a value looks like the name of a model file."""
    return isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES)


def match(name: str, choices: Sequence[str], what: str) -> str:
    r"""Return the installed file that a name means, with or without its folder and its extension.

    A complete match wins over a partial one, the same case over another case. ``/`` and ``\`` are
    alike.

    Args:
        name: the client's name.
        choices: the installed files, relative to their model folder, as ComfyUI lists them.
        what: the kind of model file; :data:`FOLDERS` may have its folder.

    Returns:
        The entry of ``choices``.

    Raises:
        Ambiguous: several files have the name; the details list them.
        ModelNotFound: no file has the name; the details list the nearest.
    """
    wanted = _plain(name)
    folder, shown = FOLDERS.get(what, ""), brief(name)
    where = f"the folder models/{folder}" if folder else "its folder"
    for fold in (str, str.casefold):
        for fits in (_is_whole, _is_part):
            found = [choice for choice in choices if fits(fold(wanted), fold(_plain(choice)))]
            if len(found) > 1:
                details = [{"given": shown, "folder": folder, "file": file} for file in found]
                listed = ", ".join(found)
                raise Ambiguous(
                    f"{what} {shown!r} fits several files: {listed}; "
                    "write its folder and extension too",
                    details,
                )
            if found:
                return found[0]
    near = nearest_files(wanted, choices)
    ways = f"ask the operator to put it into {where}, which is empty"
    if choices:
        hint = _hint(near, choices)
        ways = f"name a file that is there ({hint}), or ask the operator to put it into {where}"
    raise ModelNotFound(
        f"{what} {shown!r} is not installed: {ways}",
        [{"given": shown, "folder": folder, "nearest": near}],
    )


def spellings(choices: Sequence[str]) -> list[str]:
    """Return the names that :func:`match` takes, in the case of the files; the files come first."""
    meant: dict[str, set[str]] = {}
    for choice in choices:
        path = _plain(choice)
        for part in (path, _stem(path)):
            steps = part.split("/")
            for index in range(len(steps)):
                meant.setdefault("/".join(steps[index:]), set()).add(choice)
    short = [name for name, files in meant.items() if name and len(files) == 1]
    return list(dict.fromkeys([*choices, *sorted(short)]))


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/")


def _is_whole(wanted: str, choice: str) -> bool:
    return wanted == choice


def _is_part(wanted: str, choice: str) -> bool:
    if wanted == "":
        return False
    return any(path == wanted or path.endswith(f"/{wanted}") for path in (choice, _stem(choice)))


def _stem(choice: str) -> str:
    """Return a path without its extension."""
    folder, slash, file = choice.rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)


def nearest_files(name: str, choices: Sequence[str]) -> list[str]:
    """Return up to three files with names similar to this name, best first."""
    by_stem: dict[str, list[str]] = {}
    for choice in choices:
        by_stem.setdefault(_file_stem(choice), []).append(choice)
    close = nearest(_file_stem(name), by_stem)
    return [choice for stem in close for choice in by_stem[stem]][:3]


def _file_stem(name: str) -> str:
    return _stem(_plain(name)).rpartition("/")[2].casefold()


def _hint(near: Sequence[str], choices: Sequence[str]) -> str:
    if near:
        return f"nearest: {', '.join(near)}"
    return f"{len(choices)} there, such as {', '.join(real_files(choices)[:3])}"
