"""The commands `nodes add | remove | list | map`: node packs in custom_nodes.txt, with versions."""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from comfy_common import node_map, paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_setup import node_packs, packages
from comfy_setup.child import NO_REPOSITORY, ProgramFailed, Runner
from comfy_setup.git_source import GIT_IS_MISSING, Repository, has_git
from comfy_setup.install import install_lock
from comfy_setup.node_packs import Pack, parse_packs
from comfy_setup.registry import HTTPProblem, Registry, Release, read_url

__all__ = [
    "NODES_MEANING",
    "NoSuchPack",
    "PackFinder",
    "add_nodes_options",
    "nodes",
    "refuse_conflict",
    "write_pack",
]

NODES_MEANING = "add, remove or list node packs in custom_nodes.txt"
MANAGER = "https://raw.githubusercontent.com/ltdrdata/ComfyUI-Manager/main"
MANAGER_LISTS = ("extension-node-map.json", "custom-node-list.json")
MAX_SHOWN = 5


def add_nodes_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `nodes`.

    Args:
        parser: of the command `nodes`.
    """
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", prog=parser.prog
    )
    add = actions.add_parser("add", help="pin the newest or a given version of packs")
    add.add_argument(
        "packs",
        nargs="+",
        metavar="NAME|URL[@VERSION]",
        help="a pack of the ComfyUI registry, or a Git repository with a tag, branch or commit",
    )
    remove = actions.add_parser("remove", help="remove packs, and the packages that only they need")
    remove.add_argument("packs", nargs="+", metavar="NAME", help="a pack of custom_nodes.txt")
    actions.add_parser("list", help="list the packs of custom_nodes.txt and those beside it")
    actions.add_parser(
        "map", help="download ComfyUI-Manager's map of classes, to name the pack of a missing node"
    )


def nodes(console: Console, options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run `nodes`.

    Args:
        console: shows what happens.
        options: as :func:`add_nodes_options` reads them.
        environ: may hold COMFY_REGISTRY_URL, COMFY_NODE_MAP_URL, and a proxy.

    Returns:
        The exit code, which is 0.

    Raises:
        SetupError: it failed; one line for the user.
    """
    if options.action == "list":
        return _list(console, environ)
    if options.action == "map":
        return _fetch_map(console, environ)
    if options.action == "remove":
        return _remove(console, options.packs, environ)
    finder = PackFinder(console, environ)
    found = [finder.find(name) for name in options.packs]
    for pack, dependencies in found:
        refuse_conflict(pack, dependencies)
    for pack, _ in found:
        write_pack(console, pack)
    console.say("`python3 -m comfy_setup install` installs what custom_nodes.txt names.")
    return 0


class NoSuchPack(SetupError):
    """There is no such pack, or no such version of it."""


class PackFinder:
    """Finds the version of a pack that custom_nodes.txt pins.

    Args:
        console: shows the steps.
        environ: as for :func:`nodes`.
    """

    def __init__(self, console: Console, environ: Mapping[str, str]) -> None:
        self.registry = Registry(environ)
        self._console = console
        self._environ = environ

    def find(self, text: str) -> tuple[Pack, tuple[str, ...]]:
        """Find a pack and the version to pin.

        Args:
            text: `NAME`, `NAME@VERSION`, `URL` or `URL@REVISION`.

        Returns:
            The pack, and the Python packages that the registry says it needs.

        Raises:
            SetupError: there is no such pack or version, or a server cannot be reached.
        """
        source, version = _split(text.strip())
        if "://" in source:
            return self._of_repository(source, version), ()
        return self._of_registry(source, version)

    def _of_registry(self, name: str, version: str) -> tuple[Pack, tuple[str, ...]]:
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise SetupError(
                f"{name} is neither the name of a node pack nor a URL such as "
                "https://github.com/owner/repository; a Git repository on this disk is written "
                "file:///path"
            )
        found = self.registry.pack(name)
        if found is None:
            raise NoSuchPack(self._unknown(name))
        release = found.newest
        if version or release is None or not release.is_good:
            release = self._release(found.name, version)
        return _checked_pack(found.name, release.version), release.dependencies

    def _release(self, name: str, version: str) -> Release:
        """A version of a pack; the newest that is not withdrawn if none is named."""
        releases = self.registry.releases(name)
        good = [release for release in releases if release.is_good]
        for release in releases:
            if release.version != version:
                continue
            if not release.is_good:
                raise NoSuchPack(
                    f"the registry has withdrawn {name}@{version} ({release.status}): "
                    f"{_choice(good)}"
                )
            return release
        if version:
            raise NoSuchPack(f"the registry has no {name}@{version}: {_choice(good)}")
        if not good:
            raise NoSuchPack(
                f"the registry has no version of {name}: name its Git repository in place of it"
            )
        return good[0]

    def _unknown(self, name: str) -> str:
        known = [url.rpartition("/")[2] for url in node_map.installed_map().packs]
        near = _nearest(name, known)
        near = list(dict.fromkeys([*near, *self.registry.nearest(name)]))[:3]
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else ("search https://registry.comfy.org, or name its Git repository by URL")
        )
        return f"the registry has no node pack {name}: {hint}"

    def _of_repository(self, url: str, version: str) -> Pack:
        if urlsplit(url).password:
            raise SetupError(
                "custom_nodes.txt would hold the password in that URL: leave it out, and let Git "
                "ask a credential helper"
            )
        if re.fullmatch(r"[0-9a-f]{40}", version):
            return _checked_pack(url, version)
        if not has_git(self._environ):
            raise SetupError(GIT_IS_MISSING)
        with (
            install_lock(self._console) as lock,
            self._console.step(f"Looking up {url}") as step,
            tempfile.TemporaryDirectory(dir=paths.CACHE) as scratch,
        ):
            runner = Runner(lock, paths.CACHE / "nodes.log", self._environ)
            repository = Repository(url, runner, step)
            try:
                commit = (
                    repository.find(version, Path(scratch) / "history").commit
                    if version
                    else repository.newest_commit()
                )
            except ProgramFailed as error:
                if NO_REPOSITORY in str(error):
                    raise SetupError(f"{url}: {NO_REPOSITORY}, or it needs a login") from None
                raise
        return _checked_pack(url, commit)


def refuse_conflict(pack: Pack, dependencies: Iterable[str]) -> None:
    """Make sure that a pack does not need what the worker's lock forbids.

    Without an environment nothing can be compared; then the installation finds it.

    Args:
        pack: of the registry.
        dependencies: the Python packages that it needs, as in a requirements.txt.

    Raises:
        SetupError: it does.
    """
    lines = list(dependencies)
    if not lines or not packages.INSTALLED.is_file():
        return
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        conflicts = node_packs.forbidden(packages.unmet_requirements(file))
    if conflicts:
        raise SetupError(
            f"{pack.line} {'; '.join(conflicts)}: name another version of it (NAME@VERSION), or do "
            "without it"
        )


def write_pack(console: Console, pack: Pack) -> None:
    """Write a pack into custom_nodes.txt, in place of another version of it.

    Args:
        console: says what changed.
        pack: with its version.

    Raises:
        SetupError: custom_nodes.txt has a line of another form.
    """
    text = _list_text()
    present = {known.name.lower(): known for known in parse_packs(text)}
    former = present.get(pack.name.lower())
    if former == pack:
        console.say(f"{pack.line} is in custom_nodes.txt already")
        return
    if former is None:
        ends = "" if text.endswith("\n") or not text else "\n"
        _write_list(f"{text}{ends}{pack.line}\n")
        console.say(f"{pack.line} was added to custom_nodes.txt")
        return
    lines = [
        line.replace(former.line, pack.line, 1) if _pack_in(line) == former else line
        for line in text.splitlines()
    ]
    _write_list("".join(f"{line}\n" for line in lines))
    console.say(f"{pack.line} replaces {former.line} in custom_nodes.txt")


def _remove(console: Console, names: Iterable[str], environ: Mapping[str, str]) -> int:
    text = _list_text()
    known = parse_packs(text)
    removed = [_listed(name, known) for name in names]
    lines = [line for line in text.splitlines() if _pack_in(line) not in removed]
    _write_list("".join(f"{line}\n" for line in lines))
    for pack in removed:
        console.say(f"{pack.line} was removed from custom_nodes.txt")
    is_installed = any((pack.folder / node_packs.MARKER_NAME).is_file() for pack in removed)
    if is_installed and packages.ready():
        with install_lock(console) as lock:
            runner = Runner(lock, paths.CACHE / "install.log", environ)
            node_packs.install_packs(console, runner)
    return 0


def _listed(name: str, known: Iterable[Pack]) -> Pack:
    by_name: dict[str, Pack] = {}
    for pack in known:
        for spelling in (pack.name, pack.source, pack.line):
            by_name.setdefault(spelling.lower(), pack)
    if found := by_name.get(name.lower()):
        return found
    near = _nearest(name, [pack.name for pack in by_name.values()])
    listed = ", ".join(dict.fromkeys(pack.name for pack in by_name.values()))
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {listed or 'none'}"
    raise SetupError(f"custom_nodes.txt has no node pack {name}: {hint}")


def _list(console: Console, environ: Mapping[str, str]) -> int:
    lines = []
    listed = node_packs.listed_packs()
    for pack in listed:
        is_installed = (pack.folder / node_packs.MARKER_NAME).is_file()
        lines.append(f"{'installed' if is_installed else 'missing':<9}  {pack.line}")
    pinned = {pack.folder for pack in listed}
    unpinned = [folder for folder in node_packs.pack_folders(environ) if folder not in pinned]
    lines += [f"{'unpinned':<9}  {folder}" for folder in unpinned]
    output = Console(sys.stdout)
    for line in lines:
        output.say(line)
    if not lines:
        console.say("There are no node packs. `nodes add NAME` pins one in custom_nodes.txt.")
    return 0


def _fetch_map(console: Console, environ: Mapping[str, str]) -> int:
    base = (environ.get("COMFY_NODE_MAP_URL") or MANAGER).rstrip("/")
    lists = []
    with console.step("Downloading ComfyUI-Manager's map of node classes") as step:
        for number, name in enumerate(MANAGER_LISTS):
            step.progress(name, number / len(MANAGER_LISTS))
            url = f"{base}/{name}"
            try:
                lists.append(json.loads(read_url(url, "the map cannot be downloaded", environ)))
            except HTTPProblem as error:
                raise SetupError(
                    f"the map cannot be downloaded: {url} answers {error.status}; set "
                    "COMFY_NODE_MAP_URL to a folder with ComfyUI-Manager's lists"
                ) from None
            except (ValueError, RecursionError):
                raise SetupError(f"the answer of {url} is not JSON") from None
        try:
            made = node_map.made_from_manager(*lists)
        except ValueError as error:
            raise SetupError(f"the lists at {base} cannot be used: {error}") from None
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        node_map.NODE_MAP.parent.mkdir(exist_ok=True)
        part = node_map.NODE_MAP.with_suffix(".part")
        part.write_text(json.dumps({"fetched": today, **made.as_json()}), encoding="utf-8")
        part.replace(node_map.NODE_MAP)
    console.say(f"{len(made.classes)} classes of {len(made.packs)} packs: {node_map.NODE_MAP}")
    return 0


def _split(text: str) -> tuple[str, str]:
    """A pack and its version; the version is empty if there is none."""
    start, at, end = text.rpartition("@")
    # In `https://user@host/owner/name` the sign belongs to the URL.
    if not at or "://" in end or ("://" in start and "/" not in start.partition("://")[2]):
        return text, ""
    return start, end


def _checked_pack(source: str, version: str) -> Pack:
    """A pack that custom_nodes.txt can hold."""
    packs = parse_packs(f"{source}@{version}\n")
    if not packs:
        raise SetupError(f"{source}@{version} cannot be written into custom_nodes.txt")
    return packs[0]


def _pack_in(line: str) -> Pack | None:
    """The pack of a line; None for a comment."""
    return next(iter(parse_packs(line)), None)


def _choice(good: list[Release]) -> str:
    if not good:
        return "it has no version that is not withdrawn"
    return f"it has {', '.join(release.version for release in good[:MAX_SHOWN])}"


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    by_lower = {entry.lower(): entry for entry in known}
    near = get_close_matches(name.lower(), by_lower, n=3, cutoff=0.7)
    return [by_lower[entry] for entry in near]


def _list_text() -> str:
    try:
        return node_packs.LIST.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write_list(text: str) -> None:
    part = node_packs.LIST.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(node_packs.LIST)
