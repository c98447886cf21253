"""`check WORKFLOW --lock`: writes what a workflow needs into custom_nodes.txt and models.txt.

The worker's own `check` says which classes and models a workflow has. This module finds the node
packs and URLs for them. What it does not find becomes a comment that says what is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.models_txt import Entry, parse_models, parse_sections
from comfy_common.node_map import COMFYUI, installed_map, plain_url
from comfy_setup import models, node_packs
from comfy_setup.model_selection import needs_of_template, template_names
from comfy_setup.node_commands import NoSuchPack, PackFinder, refuse_conflict, write_pack
from comfy_setup.node_packs import Pack

__all__ = ["lock_reports", "lock_workflows"]

COMMIT = re.compile(r"[0-9a-f]{40}")
# The line after `[name]` of a section that this module has written, and may write again.
WRITTEN = "# written by `check --lock`"
MISSING = "# missing"

Report = Mapping[str, Any]


def lock_workflows(
    console: Console, options: argparse.Namespace, environ: Mapping[str, str]
) -> int:
    """Let the worker check workflows, and write what they need.

    Args:
        console: says what was written, and what is missing.
        options: of `check`: a file or folder, and where the node definitions come from.
        environ: as for :func:`lock_reports`.

    Returns:
        The exit code: 1 if something is missing, else 0.

    Raises:
        SetupError: a workflow cannot be read, or a server cannot be reached. Nothing was written.
    """
    command = [paths.VENV_PYTHON, "-m", "comfy_worker", "check", options.file, "--json"]
    if options.object_info:
        command += ["--object-info", options.object_info]
    if options.fresh:
        command.append("--fresh")
    finished = subprocess.run(command, env=dict(environ), stdout=subprocess.PIPE, text=True)
    try:
        reports = json.loads(finished.stdout)
    except ValueError:
        raise SetupError("the workflow could not be checked, see above") from None
    return lock_reports(console, reports, environ)


def lock_reports(
    console: Console, reports: Mapping[str, Report], environ: Mapping[str, str]
) -> int:
    """Write what checked workflows need into custom_nodes.txt and models.txt.

    Args:
        console: says what was written, and what is missing.
        reports: by file, what the worker's `check --json` printed.
        environ: may hold COMFY_REGISTRY_URL, VOLUME_DIR, and a proxy.

    Returns:
        The exit code: 1 if something is missing, else 0.

    Raises:
        SetupError: a workflow cannot be read, or a server cannot be reached. Nothing was written.
    """
    for file, report in reports.items():
        if "error" in report:
            raise SetupError(f"{file}: {report['error']}")
    search = _PackSearch(PackFinder(console, environ))
    urls = _known_urls(environ)
    plans = [_plan(file, report, search, urls) for file, report in reports.items()]
    for plan in plans:
        for pack in plan.packs:
            write_pack(console, pack)
        _write_missing_nodes(plan)
        if plan.entries or plan.missing_models:
            _write_section(plan)
            console.say(f"models.txt, section [{plan.section}]: {len(plan.entries)} files")
        for line in (*plan.missing_nodes, *plan.missing_models):
            console.say(f"{plan.file}: missing: {line}")
    sections = " ".join(plan.section for plan in plans if plan.entries)
    models_step = f", `python3 -m comfy_setup models --only {sections}`" if sections else ""
    argument = f'--build-arg MODELS="{sections}" ' if sections else ""
    console.say(
        f"On this machine: `python3 -m comfy_setup install`{models_step}. As an image: "
        f"`docker build {argument}-t comfy-worker:1 .`"
    )
    return 1 if any(plan.missing_nodes or plan.missing_models for plan in plans) else 0


@dataclass
class _Plan:
    """What one workflow needs.

    Attributes:
        file: the workflow's file.
        section: the name of its section in models.txt.
        packs: the node packs to write.
        missing_nodes: sentences about classes without a pack.
        entries: the model files with a URL.
        missing_models: sentences about model files without one.
    """

    file: str
    section: str
    packs: list[Pack] = field(default_factory=list)
    missing_nodes: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    missing_models: list[str] = field(default_factory=list)


def _plan(file: str, report: Report, search: _PackSearch, urls: Mapping[str, Entry]) -> _Plan:
    plan = _Plan(file, _section_name(file))
    # A pack that the workflow names has a version, which counts for its other classes too.
    for node in sorted(report["nodes"], key=lambda node: not node["pack"]):
        try:
            pack = search.pack(node)
        except NoSuchPack as error:
            plan.missing_nodes.append(f"node class {node['class_type']}: {error}")
            continue
        if pack is not None and pack not in plan.packs:
            plan.packs.append(pack)
    for need in report["needs"]:
        name = need["file"]
        known = urls.get(name.rpartition("/")[2])
        folder = need["folder"] or (known.path.partition("/")[0] if known else "")
        url = need["url"] or (known.url if known else "")
        path = f"{folder or 'FOLDER'}/{name}"
        if not url or not folder:
            plan.missing_models.append(
                f"{path}: write `{path}  URL` here, or put it on the network volume"
            )
            continue
        sha256 = known.sha256 if known and known.url == url else ""
        entry = Entry(plan.section, path, url, sha256)
        if _is_writable(entry):
            plan.entries.append(entry)
        else:
            plan.missing_models.append(f"{path}: models.txt cannot hold this name with {url}")
    return plan


def _is_writable(entry: Entry) -> bool:
    """Whether models.txt can hold an entry; a name with a blank cannot be read again."""
    try:
        [read] = parse_models(_line(entry))
    except (ValueError, SetupError):
        return False
    return (read.path, read.url) == (entry.path, entry.url)


def _line(entry: Entry) -> str:
    checksum = f"  sha256:{entry.sha256}" if entry.sha256 else ""
    return f"{entry.path}  {entry.url}{checksum}"


class _PackSearch:
    """Finds the node pack of a class, each pack once.

    Args:
        finder: finds the version of a pack.
    """

    def __init__(self, finder: PackFinder) -> None:
        self._finder = finder
        self._listed = {pack.name.lower() for pack in node_packs.listed_packs()}
        self._found: dict[str, Pack] = {}

    def pack(self, node: Mapping[str, Any]) -> Pack | None:
        """Find the pack of a class; None if custom_nodes.txt names it already.

        Args:
            node: an entry of `nodes` of the worker's report.

        Raises:
            NoSuchPack: no pack is known, or it needs what the worker's lock forbids.
            SetupError: a server cannot be reached.
        """
        if node["installed_as"].lower() in self._listed:
            return None
        problem = NoSuchPack("no node pack with it is known: add its pack with `nodes add URL`")
        for name, version in self._candidates(node):
            short = name.rstrip("/").rpartition("/")[2].removesuffix(".git").lower()
            if short in self._listed:
                return None
            if short in self._found:
                return self._found[short]
            try:
                pack = self._pinned(name, version)
            except NoSuchPack as error:
                problem = error
                continue
            self._found[pack.name.lower()] = pack
            return pack
        raise problem

    def _candidates(self, node: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield names and versions of packs that may have a class, the surest first."""
        if node["pack"]:
            yield node["pack"], node["version"]
        # A folder of this machine often has the name of the pack in the registry.
        if node["installed_as"]:
            yield node["installed_as"].lower(), ""
        known = installed_map().packs_of(node["class_type"])
        if COMFYUI in known:
            raise NoSuchPack("ComfyUI itself has it in another version: see `--comfyui-version`")
        for url in known:
            yield self._registered(url), ""
        if not node["pack"] and (name := self._finder.registry.pack_of_class(node["class_type"])):
            yield name, ""

    def _pinned(self, name: str, version: str) -> Pack:
        pack, dependencies = self._find(name, version)
        try:
            refuse_conflict(pack, dependencies)
        except SetupError as error:
            raise NoSuchPack(str(error)) from None
        return pack

    def _find(self, name: str, version: str) -> tuple[Pack, tuple[str, ...]]:
        if "/" in name:
            url = name if "://" in name else f"https://github.com/{name}"
            return self._finder.find(f"{url}@{version}" if COMMIT.fullmatch(version) else url)
        if COMMIT.fullmatch(version):
            registered = self._finder.registry.pack(name)
            if registered is not None and "://" in registered.repository:
                return self._finder.find(f"{registered.repository}@{version}")
        elif version:
            try:
                return self._finder.find(f"{name}@{version}")
            except NoSuchPack:
                pass  # the newest version takes its place
        return self._finder.find(name)

    def _registered(self, url: str) -> str:
        """The name of a repository's pack in the registry; the URL if it is not there."""
        found = self._finder.registry.pack(plain_url(url).rpartition("/")[2])
        is_same = found is not None and plain_url(found.repository) == plain_url(url)
        return found.name if found is not None and is_same else url


def _known_urls(environ: Mapping[str, str]) -> dict[str, Entry]:
    """The model files of models.txt and of the templates' needs, by the name of the file."""
    entries = parse_models(models.models_text())
    for name in template_names(environ):
        entries += needs_of_template(name, environ)
    by_name: dict[str, Entry] = {}
    for entry in entries:
        by_name.setdefault(entry.path.rpartition("/")[2], entry)
    return by_name


def _section_name(file: str) -> str:
    """The section for a file; another one if the name is taken by a section of somebody else."""
    name = re.sub(r"[^\w.-]+", "-", Path(file).stem).strip("-.") or "workflow"
    text = models.models_text()
    is_ours = f"[{name}]  {WRITTEN}" in text
    return name if is_ours or name not in parse_sections(text) else f"{name}-workflow"


def _write_section(plan: _Plan) -> None:
    lines: list[str] = []
    is_old = False
    for line in models.models_text().splitlines():
        if line.startswith("["):
            is_old = line.startswith(f"[{plan.section}]")
        if not is_old:
            lines.append(line)
    while lines and not lines[-1].strip():
        lines.pop()
    lines += ["", f"[{plan.section}]  {WRITTEN} from {Path(plan.file).name}"]
    lines += map(_line, plan.entries)
    lines += [f"{MISSING}: {sentence}" for sentence in plan.missing_models]
    _replace(models.MODELS_TXT, lines)


def _write_missing_nodes(plan: _Plan) -> None:
    """Write the comments about classes without a pack; those of a former call are removed."""
    start = f"{MISSING} for {Path(plan.file).name}:"
    text = node_packs.LIST.read_text(encoding="utf-8") if node_packs.LIST.is_file() else ""
    lines = [line for line in text.splitlines() if not line.startswith(start)]
    lines += [f"{start} {sentence}" for sentence in plan.missing_nodes]
    if lines != text.splitlines():
        _replace(node_packs.LIST, lines)


def _replace(file: Path, lines: Iterable[str]) -> None:
    # Names in a workflow may hold line breaks, which would end a comment.
    text = "".join(f"{' '.join(line.splitlines())}\n" for line in lines)
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
