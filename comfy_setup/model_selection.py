"""Chooses files of models.txt by the names of sections, families, files or templates."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfy_common import paths
from comfy_common.errors import SetupError
from comfy_common.models_txt import Entry, ModelsTxtError, parse_models, parse_sections

__all__ = ["by_section", "needs_of_template", "read_text", "selected", "template_names"]


def read_text(file: Path) -> str:
    """Read models.txt; a missing file is empty.

    Args:
        file: models.txt.

    Raises:
        SetupError: it is not text.
    """
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise SetupError(f"models.txt is not UTF-8 text: {error}") from error


def selected(text: str, only: Sequence[str], environ: Mapping[str, str]) -> list[Entry]:
    """List the entries of models.txt that some names mean.

    Args:
        text: of models.txt.
        only: sections of models.txt, families of sections, files as `folder/file`, or templates;
            empty for all of models.txt.
        environ: may hold VOLUME_DIR, which may contain templates too.

    Returns:
        The entries, each file once.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    grouped = by_section(text, only, environ)
    by_path: dict[str, Entry] = {}
    for entries in grouped.values():
        for entry in entries:
            by_path.setdefault(entry.path, entry)
    return list(by_path.values())


def by_section(
    text: str, only: Sequence[str], environ: Mapping[str, str]
) -> dict[str, list[Entry]]:
    """List the entries that some names mean, by section.

    Args:
        text: as for :func:`selected`, and so are the others.
        only: the same.
        environ: the same.

    Returns:
        The entries by the name of their section. A file of several sections is in each.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    entries = parse_models(text)
    chosen = [] if only else entries
    for name in only:
        chosen += _named(name, text, entries, environ)
    grouped: dict[str, dict[str, Entry]] = {}
    for entry in chosen:
        grouped.setdefault(entry.section, {}).setdefault(entry.path, entry)
    return {section: list(found.values()) for section, found in grouped.items()}


def _named(
    name: str, text: str, entries: Sequence[Entry], environ: Mapping[str, str]
) -> list[Entry]:
    """The entries of a section, a family, a file or a template."""
    found = [entry for entry in entries if entry.section == name]
    if not found:
        members = _members(name, text)
        found = [entry for entry in entries if entry.section in members]
    if not found:
        found = [entry for entry in entries if entry.path == name][:1]
    if not found:
        found = needs_of_template(name, environ)
    if not found and name in parse_sections(text):
        raise SetupError(
            f"the section [{name}] of models.txt names no files: write a line `folder/file  URL` "
            "for each model that is missing, or remove the section"
        )
    if not found:
        raise SetupError(_unknown(name, text, entries, environ))
    return found


def _members(family: str, text: str) -> set[str]:
    """The sections of a family, in any case and with any separators: "Wan 2.2" is wan22."""
    wanted = _plain(family)
    members = set()
    for section in parse_sections(text).values():
        if wanted in map(_plain, section.families):
            members.add(section.name)
    return members


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _unknown(name: str, text: str, entries: Sequence[Entry], environ: Mapping[str, str]) -> str:
    sections = parse_sections(text)
    families = [family for section in sections.values() for family in section.families]
    files = [entry.path for entry in entries]
    known = list(dict.fromkeys([*sections, *families, *files, *template_names(environ)]))
    near = _nearest(name, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return (
        f"models.txt has no section {name}: it has {', '.join(sections) or 'none'}; "
        f"its families are {', '.join(sorted(set(families))) or 'none'}; and {name} is not one of "
        f"its files, or a template with URLs of its models{hint}"
    )


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Up to three known names that a mistyped one may mean."""
    by_plain: dict[str, str] = {}
    for entry in known:
        by_plain.setdefault(_plain(entry), entry)
        by_plain.setdefault(_plain(Path(entry).stem), entry)
    near = difflib.get_close_matches(_plain(name), by_plain, n=3, cutoff=0.6)
    wanted = _plain(name)
    if not near and len(wanted) > 2:
        near = [plain for plain in by_plain if plain.startswith(wanted)][:3]
    return list(dict.fromkeys(by_plain[plain] for plain in near))


def template_names(environ: Mapping[str, str]) -> list[str]:
    """The names of the templates that have a params file.

    Args:
        environ: may hold VOLUME_DIR, which may contain templates too.
    """
    names: list[str] = []
    for folder in paths.workflow_folders(paths.volume_dir(environ)):
        names += [file.name.removesuffix(".params.json") for file in folder.glob("*.params.json")]
    return names


def needs_of_template(name: str, environ: Mapping[str, str]) -> list[Entry]:
    """List the model files of a template's params that have a URL.

    Args:
        name: of the template.
        environ: may hold VOLUME_DIR, which may contain templates too.

    Raises:
        SetupError: the params cannot be read.
    """
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
