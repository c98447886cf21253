"""Lists and checks the installed model files and those of models.txt; makes the placeholder."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from comfy_common import model_folders, paths
from comfy_common.console import Console
from comfy_common.download import digest_of
from comfy_common.errors import SetupError
from comfy_common.models_txt import MODELS_TXT, Entry, ModelsTxtError, parse_models
from comfy_common.placeholder_names import is_placeholder
from comfy_common.safetensors_header import DamagedModel, check_whole
from comfy_common.text import size

PLACEHOLDER = Path("checkpoints") / "placeholder-sd15.safetensors"


def folders(environ: Mapping[str, str]) -> dict[str, list[Path]]:
    """The folders that ComfyUI searches for models, by `checkpoints`, `loras` ...

    Args:
        environ: may hold MODELS_DIR, COMFYUI_DIR, VOLUME_DIR and MODELS_CACHE_DIR.
    """
    return model_folders.model_folders(paths.comfyui_dir(environ), paths.model_roots(environ))


def damage(path: Path, sha256: str = "") -> str:
    """Say what is wrong with a model file, by its format and its hash; empty for nothing.

    Args:
        path: a model file.
        sha256: the expected hash in hex; empty if it is not known.
    """
    try:
        check_whole(path, path.suffix)
        if sha256 and digest_of(path) != sha256:
            return "is not the file of models.txt: its sha256 differs"
    except DamagedModel as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def ensure_checkpoint(console: Console, environ: Mapping[str, str]) -> bool:
    """Make the placeholder checkpoint if there is no checkpoint. Needs the virtual environment.

    Args:
        console: explains the placeholder, and how to install real weights.
        environ: may hold MODELS_DIR and COMFYUI_DIR.

    Returns:
        Whether all checkpoints are placeholders.
    """
    installed = model_folders.model_files(folders(environ))
    checkpoints = list(chain(*installed.get("checkpoints", {}).values()))
    if any(not is_placeholder(path.name) for path in checkpoints):
        return False
    root = paths.model_roots(environ)[0]
    if not checkpoints:
        from comfy_local.placeholder import write_checkpoint

        with console.step(f"Making a placeholder checkpoint, {root / PLACEHOLDER}"):
            write_checkpoint(root / PLACEHOLDER)
    console.say("The only checkpoint is a placeholder with random weights, so pictures are noise.")
    console.say(
        "`run --real` downloads a small real checkpoint, `models --only txt2img` the usual one. "
        f"You can also put a .safetensors file into {root / 'checkpoints'}."
    )
    return True


def listed(only: Sequence[str], environ: Mapping[str, str]) -> list[Entry]:
    """List the entries of models.txt, or those of chosen sections, files and templates.

    Args:
        only: sections of models.txt, files as `folder/file`, or templates; empty for all of
            models.txt.
        environ: may hold VOLUME_DIR, which may contain templates too.

    Returns:
        The entries, each file once.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    try:
        text = MODELS_TXT.read_text(encoding="utf-8") if MODELS_TXT.is_file() else ""
    except UnicodeDecodeError as error:
        raise SetupError(f"models.txt is not UTF-8 text: {error}") from error
    entries = parse_models(text)
    chosen = [] if only else entries
    for name in only:
        chosen += _named(name, entries, environ)
    return list({entry.path: entry for entry in chosen}.values())


def _named(name: str, entries: Sequence[Entry], environ: Mapping[str, str]) -> list[Entry]:
    """The entries of a section, a file or a template."""
    found = [entry for entry in entries if entry.section == name]
    if not found:
        found = [entry for entry in entries if entry.path == name][:1]
    if not found:
        found = _needs_of_template(name, environ)
    if not found:
        sections = dict.fromkeys(entry.section for entry in entries if entry.section)
        raise SetupError(
            f"models.txt has no section {name}: it has {', '.join(sections) or 'none'}; "
            f"and {name} is not one of its files, or a template with URLs of its models"
        )
    return found


def _needs_of_template(name: str, environ: Mapping[str, str]) -> list[Entry]:
    """The model files of a template's params that have a URL."""
    if not re.fullmatch(r"[\w.-]+", name):
        return []
    for folder in paths.workflow_folders(paths.volume_dir(environ)):
        file = folder / f"{name}.params.json"
        if not file.is_file():
            continue
        try:
            needs = json.loads(file.read_text(encoding="utf-8-sig")).get("needs", [])
            lines = [
                f"{need['folder']}/{need['file']}  {need['url']}"
                for need in needs
                if need.get("url")
            ]
            return parse_models("\n".join(lines))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelsTxtError) as error:
            raise SetupError(f"the `needs` of {file} cannot be read: {error}") from None
    return []


def find(entry: Entry, searched: Mapping[str, Sequence[Path]]) -> Path | None:
    """Find the installed file of an entry; None if it is missing.

    Args:
        entry: an entry of models.txt.
        searched: the result of :func:`folders`.
    """
    folder_name, _, file = entry.path.partition("/")
    for folder in searched.get(folder_name, ()):
        if (folder / file).is_file():
            return folder / file
    return None


def list_models(environ: Mapping[str, str], only: Sequence[str]) -> int:
    """Print the installed model files, and which files of models.txt are present or missing.

    Args:
        environ: as for :func:`folders`.
        only: as for :func:`listed`.

    Returns:
        The exit code, which is 0.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    console = Console(sys.stdout)
    searched = folders(environ)
    for folder_name, found in model_folders.model_files(searched).items():
        console.say(f"{folder_name}:")
        for path in chain(*found.values()):
            console.say(f"  {size(path.stat().st_size):>8}  {path}")
    for entry in listed(only, environ):
        installed = find(entry, searched)
        missing = f"missing  {entry.path}  {entry.url}"
        console.say(f"present  {installed}" if installed else missing)
    return 0


def check_models(environ: Mapping[str, str], only: Sequence[str]) -> int:
    """Check the files of models.txt, without the network, and print the result for each.

    Args:
        environ: as for :func:`folders`.
        only: as for :func:`listed`.

    Returns:
        The exit code: 1 if a file is missing or damaged, else 0.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    searched = folders(environ)
    console = Console(sys.stdout)
    exit_code = 0
    for entry in listed(only, environ):
        path = find(entry, searched)
        if path is None:
            result = f"missing  {entry.path}"
            exit_code = 1
        elif problem := damage(path, entry.sha256):
            result = f"damaged  {path}  {problem}"
            exit_code = 1
        else:
            result = f"right    {path}"
        console.say(result)
    return exit_code
