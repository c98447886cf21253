"""Maps the classes of nodes to the node packs that have them, from a file on this machine.

`python3 -m comfy_setup nodes map` makes the file from ComfyUI-Manager's lists. The worker reads it
to name the pack that a workflow lacks, so no job needs the network for that. A pack is named by the
URL of its repository: the names in Manager's lists are not those of the registry. Standard library
only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from comfy_common import paths

__all__ = [
    "COMFYUI",
    "NODE_MAP",
    "NodeMap",
    "installed_map",
    "made_from_manager",
    "packs_of",
    "plain_url",
]

NODE_MAP = paths.CACHE / "node_map.json"
# The source of a class that ComfyUI itself has, in another version than the installed one.
COMFYUI = "comfy-core"
COMFYUI_REPOSITORY = re.compile(r"github\.com/(comfyanonymous|comfy-org)/comfyui", re.IGNORECASE)
# A shorter beginning or ending of class names would fit the classes of many packs.
SHORTEST_PATTERN = 4
# How many packs are named for one class. Copies of a pack have the same classes.
MAX_PACKS = 3


@dataclass(frozen=True)
class NodeMap:
    """Which node packs have which classes.

    Attributes:
        packs: the URLs of the packs' repositories.
        classes: by class, the numbers of its packs, the likeliest first.
        beginnings: by the beginning of class names, the numbers of the packs that use it.
        endings: the same for endings.
    """

    packs: Sequence[str] = ()
    classes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    beginnings: Mapping[str, Sequence[int]] = field(default_factory=dict)
    endings: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def packs_of(self, class_type: str) -> list[str]:
        """Name the packs that have a class; empty if none is known.

        Args:
            class_type: the name of the class.

        Returns:
            URLs of repositories, or only :data:`COMFYUI`.
        """
        numbers = self.classes.get(class_type) or self._by_pattern(class_type)
        urls = [self.packs[number] for number in numbers]
        if any(map(_is_comfyui, urls)):
            return [COMFYUI]
        return urls[:MAX_PACKS]

    def _by_pattern(self, class_type: str) -> Sequence[int]:
        for beginning, numbers in self.beginnings.items():
            if class_type.startswith(beginning):
                return numbers
        for ending, numbers in self.endings.items():
            if class_type.endswith(ending):
                return numbers
        return ()

    def as_json(self) -> dict[str, Any]:
        """The map as JSON, as :func:`installed_map` reads it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Any) -> NodeMap:
        """Read what :meth:`as_json` returned.

        Raises:
            ValueError: the value has another form.
        """
        if not isinstance(value, dict) or not isinstance(value.get("packs"), list):
            raise ValueError("not a map of node packs")
        packs = value["packs"]
        known = set(range(len(packs)))
        parts = [value.get(name) for name in ("classes", "beginnings", "endings")]
        for part in parts:
            if not isinstance(part, dict):
                raise ValueError("not a map of node packs")
            for numbers in part.values():
                if not isinstance(numbers, list) or not known.issuperset(numbers):
                    raise ValueError("not a map of node packs")
        return cls(packs, *(part or {} for part in parts))


def installed_map(file: Path | None = None) -> NodeMap:
    """Read the map of this machine; empty if there is none, or if it cannot be read.

    Args:
        file: where it is; None for the place where `nodes map` puts it.
    """
    file = file or NODE_MAP
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return NodeMap()
    return _read(file, changed)


def packs_of(class_type: str) -> list[str]:
    """Name the packs that have a class, by the map of this machine.

    Args:
        class_type: the name of the class.
    """
    return installed_map().packs_of(class_type)


def plain_url(url: str) -> str:
    """A repository's URL in the form in which two are compared.

    Args:
        url: of a repository, perhaps with `.git` at its end.
    """
    return re.sub(r"(\.git)?/*$", "", url.strip()).lower()


@lru_cache(maxsize=1)
def _read(file: Path, _changed: int) -> NodeMap:
    try:
        return NodeMap.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return NodeMap()


def made_from_manager(classes_by_url: Any, pack_list: Any) -> NodeMap:
    """Make the map from ComfyUI-Manager's two lists.

    Args:
        classes_by_url: `extension-node-map.json`: by URL of a repository, the classes, and further
            facts, such as a pattern of their names.
        pack_list: `custom-node-list.json`. A pack is listed there before the copies of it.

    Raises:
        ValueError: a list has another form.
    """
    order = _order(pack_list)
    if not isinstance(classes_by_url, dict) or not classes_by_url:
        raise ValueError("extension-node-map.json has another form")
    last = len(order)
    packs = sorted(classes_by_url, key=lambda url: order.get(plain_url(url), last))
    classes: dict[str, list[int]] = {}
    beginnings: dict[str, list[int]] = {}
    endings: dict[str, list[int]] = {}
    for number, url in enumerate(packs):
        declared, facts = _entry(classes_by_url[url])
        for class_type in dict.fromkeys(declared):
            classes.setdefault(class_type, []).append(number)
        beginning, ending = _literal(facts.get("nodename_pattern"))
        if beginning:
            beginnings.setdefault(beginning, []).append(number)
        if ending:
            endings.setdefault(ending, []).append(number)
    return NodeMap(packs, classes, beginnings, endings)


def _is_comfyui(url: str) -> bool:
    return COMFYUI_REPOSITORY.fullmatch(plain_url(url).partition("://")[2]) is not None


def _order(pack_list: Any) -> dict[str, int]:
    """By the URL of a pack, its place in Manager's list."""
    entries = pack_list.get("custom_nodes") if isinstance(pack_list, dict) else None
    if not isinstance(entries, list):
        raise ValueError("custom-node-list.json has another form")
    order: dict[str, int] = {}
    for url in _references(entries):
        order.setdefault(plain_url(url), len(order))
    return order


def _references(entries: Iterable[Any]) -> list[str]:
    urls = [entry.get("reference") for entry in entries if isinstance(entry, dict)]
    return [url for url in urls if isinstance(url, str)]


def _entry(entry: Any) -> tuple[list[str], Mapping[str, Any]]:
    """The classes and the facts of an entry of extension-node-map.json."""
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], list):
        return [], {}
    facts = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
    return [name for name in entry[0] if isinstance(name, str)], facts


def _literal(pattern: Any) -> tuple[str, str]:
    r"""The beginning or ending that a pattern such as ` \(rgthree\)$` means; empty for any other.

    Other patterns fit classes of other packs too. No pattern is run as a regular expression: it
    comes from the network, and class names come from clients.
    """
    if not isinstance(pattern, str) or pattern.startswith("^") == pattern.endswith("$"):
        return "", ""
    is_beginning = pattern.startswith("^")
    body = pattern[1:] if is_beginning else pattern[:-1]
    literal = re.sub(r"\\([^\w])", r"\1", body)
    unescaped = re.sub(r"\\[^\w]", "", body)
    if len(literal) < SHORTEST_PATTERN or re.search(r"[\\^$.|?*+()\[\]{}]", unescaped):
        return "", ""
    return (literal, "") if is_beginning else ("", literal)
