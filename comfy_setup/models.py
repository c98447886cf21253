"""Model files: which are there, which models.txt names, and the placeholder for a machine that has none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from comfy_common import model_folders as places
from comfy_common import paths
from comfy_common.console import Console
from comfy_common.download import digest_of
from comfy_common.errors import SetupError
from comfy_common.models_txt import MODELS_TXT, Entry, ModelsTxtError, parse_models
from comfy_common.placeholder_names import is_placeholder
from comfy_common.safetensors_header import DamagedModel, check_whole
from comfy_common.text import size

PLACEHOLDER = Path("checkpoints") / "placeholder-sd15.safetensors"


def folders(environ: Mapping[str, str]) -> dict[str, list[Path]]:
    """Say where models are looked for, by kind.

    Args:
        environ: may hold MODELS_DIR, COMFYUI_DIR, VOLUME_DIR and MODELS_CACHE_DIR.
    """
    return places.model_folders(paths.comfyui_dir(environ), paths.model_roots(environ))


def damage(path: Path, sha256: str = "") -> str:
    """Say what is wrong with a model file, as far as its format and its hash tell; empty for nothing.

    Args:
        path: a model file.
        sha256: that it must have, in hex; empty if that is not known.
    """
    try:
        check_whole(path, path.suffix)
        if sha256 and digest_of(path) != sha256:
            return "is not the file that models.txt means: its sha256 differs"
    except DamagedModel as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def ensure_checkpoint(console: Console, environ: Mapping[str, str]) -> bool:
    """Make the placeholder checkpoint if there is no checkpoint; only inside the virtual environment.

    Args:
        console: told what it is, and how to get real weights.
        environ: may hold MODELS_DIR and COMFYUI_DIR.

    Returns:
        Whether there is nothing but placeholders.
    """
    checkpoints = list(chain(*places.model_files(folders(environ)).get("checkpoints", {}).values()))
    if any(not is_placeholder(path.name) for path in checkpoints):
        return False
    root = paths.model_roots(environ)[0]
    if not checkpoints:
        from comfy_local.placeholder import write_checkpoint

        with console.step(f"Making a placeholder checkpoint, {root / PLACEHOLDER}"):
            write_checkpoint(root / PLACEHOLDER)
    console.say(
        "The only checkpoint here is a placeholder with random weights: its pictures are noise that proves"
    )
    console.say("the pipeline. `run --real` fetches a small real one, `models --only txt2img` the usual one;")
    console.say(f"or put a .safetensors file into {root / 'checkpoints'}.")
    return True


def listed(only: Sequence[str], environ: Mapping[str, str]) -> list[Entry]:
    """Read models.txt, and what templates say of the models that they need.

    Args:
        only: sections of models.txt, files as `folder/file`, or templates; empty for all of models.txt.
        environ: may hold VOLUME_DIR, where templates may lie too.

    Returns:
        The lines, each file once.

    Raises:
        SetupError: models.txt cannot be read, or there is nothing of such a name.
    """
    try:
        entries = parse_models(MODELS_TXT.read_text(encoding="utf-8")) if MODELS_TXT.is_file() else []
    except UnicodeDecodeError as error:
        raise SetupError(f"models.txt is no UTF-8 text: {error}") from error
    chosen = [entry for name in only for entry in _named(name, entries, environ)] if only else entries
    return list({entry.path: entry for entry in chosen}.values())


def _named(name: str, entries: Sequence[Entry], environ: Mapping[str, str]) -> list[Entry]:
    """The lines that one name means."""
    found = [entry for entry in entries if entry.section == name]
    if not found:
        found = [entry for entry in entries if entry.path == name][:1]
    if not found:
        found = _needs_of_template(name, environ)
    if not found:
        sections = dict.fromkeys(entry.section for entry in entries if entry.section)
        raise SetupError(
            f"models.txt has no section {name}: it has {', '.join(sections) or 'none'}; nor is {name} one of its "
            "files, or a template that names where its models come from"
        )
    return found


def _needs_of_template(name: str, environ: Mapping[str, str]) -> list[Entry]:
    """The model files that a template's params name with their URLs."""
    if not re.fullmatch(r"[\w.-]+", name):
        return []
    for folder in paths.workflow_folders(paths.volume_dir(environ)):
        file = folder / f"{name}.params.json"
        if not file.is_file():
            continue
        try:
            needs = json.loads(file.read_text(encoding="utf-8-sig")).get("needs", [])
            lines = [f"{need['folder']}/{need['file']}  {need['url']}" for need in needs if need.get("url")]
            return parse_models("\n".join(lines))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelsTxtError) as error:
            raise SetupError(f"{file} does not say where its models come from: {error}") from None
    return []


def find(entry: Entry, searched: Mapping[str, Sequence[Path]]) -> Path | None:
    """Say where a file of models.txt lies; None where it does not.

    Args:
        entry: its line.
        searched: the folders by kind.
    """
    kind, _, file = entry.path.partition("/")
    return next((folder / file for folder in searched.get(kind, ()) if (folder / file).is_file()), None)


def list_models(environ: Mapping[str, str], only: Sequence[str]) -> int:
    """Print which model files are there, and which of models.txt are missing.

    Args:
        environ: as for :func:`folders`.
        only: sections of models.txt to look at, empty for all.

    Returns:
        0.

    Raises:
        SetupError: models.txt cannot be read, or has no such section.
    """
    searched = folders(environ)
    for kind, found in places.model_files(searched).items():
        print(f"{kind}:")
        for path in chain(*found.values()):
            print(f"  {size(path.stat().st_size):>8}  {path}")
    for entry in listed(only, environ):
        there = find(entry, searched)
        print(f"present  {there}" if there else f"missing  {entry.path}  {entry.url}")
    return 0


def check_models(environ: Mapping[str, str], only: Sequence[str]) -> int:
    """Look at the files that models.txt names as far as that goes without the network, and print what is wrong.

    Args:
        environ: as for :func:`folders`.
        only: sections of models.txt to look at, empty for all.

    Returns:
        1 if a file is missing or is not what it should be, else 0.

    Raises:
        SetupError: models.txt cannot be read, or has no such section.
    """
    searched = folders(environ)
    wrong = 0
    for entry in listed(only, environ):
        path = find(entry, searched)
        problem = damage(path, entry.sha256) if path else ""
        wrong += path is None or bool(problem)
        word = "damaged" if problem else "right" if path else "missing"
        print(f"{word:<8} {path or entry.path}  {problem}".rstrip())
    return 1 if wrong else 0
