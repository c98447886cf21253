"""Lists and checks the installed model files and those of models.txt; installs the toy model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from comfy_common import hub_cache, model_folders, paths
from comfy_common.console import Console
from comfy_common.download import digest_of
from comfy_common.models_txt import MODELS_TXT as MODELS_TXT
from comfy_common.models_txt import Entry, Section, parse_sections, total_size
from comfy_common.placeholder_names import is_real, is_toy
from comfy_common.safetensors_header import DamagedModel, check_whole
from comfy_common.sources import Access
from comfy_common.text import size
from comfy_setup.model_selection import by_section, read_text, selected


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
    """Install the toy model if there is no real checkpoint.

    Args:
        console: explains the toy, and how to install real weights.
        environ: may hold MODELS_DIR, MODELS_CACHE_DIR and COMFYUI_DIR.

    Returns:
        Whether there is no real checkpoint, so that the toy draws.

    Raises:
        OSError: neither the folder of models nor the cache can be written.
    """
    installed = model_folders.model_files(folders(environ))
    checkpoints = list(chain(*installed.get("checkpoints", {}).values()))
    if any(is_real(path.name) for path in checkpoints):
        return False
    root = paths.model_roots(environ)[0]
    from comfy_local.toy_model.files import is_current

    toys = [path for path in checkpoints if is_toy(path.name)]
    if not any(is_current(path) and not damage(path) for path in toys):
        _unpack_toy(console, root, paths.models_cache_dir(environ))
    console.say("No real checkpoint is installed: a toy model of 5 MB draws coloured shapes.")
    console.say(
        "`run --real` downloads a small real checkpoint, `models --only txt2img` the usual one. "
        f"You can also put a .safetensors file into {root / 'checkpoints'}."
    )
    return True


def _unpack_toy(console: Console, root: Path, cache: Path) -> None:
    """Unpack the toy model into a folder of models; if that fails, into the cache."""
    from comfy_local.toy_model.files import CHECKPOINT, install_toy

    try:
        with console.step(f"Unpacking the toy model, {root / CHECKPOINT}"):
            install_toy(root)
    except OSError as error:
        # In an image the folder belongs to root, and the worker may write to its cache only.
        console.say(f"{root}: {error.strerror}")
        with console.step(f"Unpacking the toy model, {cache / CHECKPOINT}"):
            install_toy(cache)


def listed(only: Sequence[str], environ: Mapping[str, str]) -> list[Entry]:
    """List the entries of models.txt, or those of chosen sections, families, files and templates.

    Args:
        only: as for :func:`comfy_setup.model_selection.selected`; empty for all of models.txt.
        environ: may hold VOLUME_DIR, which may contain templates too.

    Returns:
        The entries, each file once.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    return selected(models_text(), only, environ)


def models_text() -> str:
    """The text of models.txt; empty if the file is missing.

    Raises:
        SetupError: it is not text.
    """
    return read_text(MODELS_TXT)


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


class InstalledModels:
    """The model files of this machine, with those in caches of Hugging Face.

    Args:
        environ: as for :func:`folders`, and what says where the caches are.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.folders = folders(environ)
        self._cached = hub_cache.snapshots(paths.hub_caches(environ))
        self._endpoint = Access.from_env(environ).endpoint

    def find(self, entry: Entry) -> Path | None:
        """Find the file of an entry; None if it is missing.

        Args:
            entry: an entry of models.txt.
        """
        return find(entry, self.folders) or self.find_cached(entry)

    def find_cached(self, entry: Entry) -> Path | None:
        """Find the file of an entry in the caches, where it may have another name.

        Args:
            entry: an entry of models.txt.
        """
        return hub_cache.find_url(entry.url, self._cached, self._endpoint)


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
    installed = InstalledModels(environ)
    console = Console(sys.stdout)
    for folder_name, found in model_folders.model_files(installed.folders).items():
        console.say(f"{folder_name}:")
        for path in chain(*found.values()):
            console.say(f"  {size(path.stat().st_size):>8}  {path}")
    text = models_text()
    sections = parse_sections(text)
    for name, entries in by_section(text, only, environ).items():
        section = sections.get(name)
        if name:
            console.say(_section_line(name, section, entries))
        for entry in entries:
            console.say(f"  {_entry_line(entry, installed.find(entry))}")
    return 0


def _section_line(name: str, section: Section | None, entries: Sequence[Entry]) -> str:
    total = total_size(section, entries)
    facts = [f"about {size(total)}" if total else "size not stated"]
    if section is not None and section.families:
        facts.append(f"family {', '.join(section.families)}")
    licence = section.licence if section is not None else ""
    facts.append(f"licence {licence}" if licence else "licence: see the model's page")
    return f"[{name}]  {'; '.join(facts)}"


def _entry_line(entry: Entry, installed: Path | None) -> str:
    if installed is not None:
        return f"present  {installed}"
    stated = f"  {size(entry.size)}" if entry.size else ""
    return f"missing  {entry.path}  {entry.url}{stated}"


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
    installed = InstalledModels(environ)
    console = Console(sys.stdout)
    exit_code = 0
    for entry in listed(only, environ):
        path = installed.find(entry)
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
