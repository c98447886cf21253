"""Maps the classes of nodes to the node packs that have them, from a file on this machine.

`python3 -m comfy_setup nodes map` makes the file from ComfyUI-Manager's lists. The worker reads it
to name the pack that a workflow lacks, so no job needs the network for that. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from comfy_common import paths

__all__ = ["COMFYUI", "NODE_MAP", "NodeMap", "installed_map", "made_from_manager", "packs_of"]

NODE_MAP = paths.CACHE / "node_map.json"
# The source of a class that ComfyUI itself has, in another version than the installed one.
COMFYUI = "comfy-core"
COMFYUI_REPOSITORY = re.compile(r"github\.com/(comfyanonymous|Comfy-Org)/ComfyUI$", re.IGNORECASE)
# A shorter ending of class names would fit the classes of many packs.
SHORTEST_PATTERN = 4
# How many packs are named for one class. Copies of a pack have the same classes.
MAX_PACKS = 3


@dataclass(frozen=True)
class NodeMap:
    """Which node packs have which classes.

    Attributes:
        classes: by class, the names of its packs: of the registry, or URLs of Git repositories.
        endings: by the ending of class names, the name of the only pack that uses it.
        urls: by name of a pack, the URL of its Git repository.
    """

    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    endings: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)

    def packs(self, class_type: str) -> list[str]:
        """Name the packs that have a class; empty if none is known.

        Args:
            class_type: the name of the class.
        """
        if known := self.classes.get(class_type):
            return list(known[:MAX_PACKS])
        return [pack for ending, pack in self.endings.items() if class_type.endswith(ending)][:1]

    def as_json(self) -> dict[str, Any]:
        """The map as JSON, as :func:`installed_map` reads it."""
        return {"classes": self.classes, "endings": self.endings, "urls": self.urls}

    @classmethod
    def from_json(cls, value: Any) -> NodeMap:
        """Read what :meth:`as_json` returned.

        Raises:
            ValueError: the value has another form.
        """
        if not isinstance(value, dict):
            raise ValueError("not a map of node packs")
        parts = [value.get(name) for name in ("classes", "endings", "urls")]
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("not a map of node packs")
        if not all(isinstance(packs, list) for packs in value["classes"].values()):
            raise ValueError("not a map of node packs")
        return cls(value["classes"], value["endings"], value["urls"])


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
    return installed_map().packs(class_type)


@lru_cache(maxsize=1)
def _read(file: Path, _changed: int) -> NodeMap:
    try:
        return NodeMap.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return NodeMap()


def made_from_manager(classes_by_url: Any, pack_list: Any) -> NodeMap:
    """Make the map from ComfyUI-Manager's two lists.

    Args:
        classes_by_url: `extension-node-map.json`: by URL of a repository, the classes, and further
            facts, such as a pattern of their names.
        pack_list: `custom-node-list.json`, which has the names in the registry.

    Raises:
        ValueError: a list has another form.
    """
    names = _names_by_url(pack_list)
    if not isinstance(classes_by_url, dict) or not classes_by_url:
        raise ValueError("extension-node-map.json has another form")
    classes: dict[str, list[str]] = {}
    by_ending: dict[str, set[str]] = {}
    urls: dict[str, str] = {}
    for url, entry in classes_by_url.items():
        pack = names.get(_plain(url)) or str(url)
        if COMFYUI_REPOSITORY.search(_plain(url)):
            pack = COMFYUI
        urls[pack] = url
        declared, facts = _entry(entry)
        for class_type in declared:
            known = classes.setdefault(class_type, [])
            if pack not in known:
                known.append(pack)
        if ending := _literal_ending(facts.get("nodename_pattern")):
            by_ending.setdefault(ending, set()).add(pack)
    # Several packs that claim one ending are copies, or the ending is too general.
    endings = {ending: min(packs) for ending, packs in by_ending.items() if len(packs) == 1}
    return NodeMap({name: _sorted(packs, names) for name, packs in classes.items()}, endings, urls)


def _sorted(packs: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """ComfyUI first, then the packs of the registry, since these have versions."""
    of_registry = set(names.values())
    return sorted(packs, key=lambda pack: (pack != COMFYUI, pack not in of_registry))


def _names_by_url(pack_list: Any) -> dict[str, str]:
    entries = pack_list.get("custom_nodes") if isinstance(pack_list, dict) else None
    if not isinstance(entries, list):
        raise ValueError("custom-node-list.json has another form")
    names: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        name, url = entry.get("id"), entry.get("reference")
        if isinstance(name, str) and isinstance(url, str) and re.fullmatch(r"[\w.-]+", name):
            names.setdefault(_plain(url), name)
    return names


def _entry(entry: Any) -> tuple[list[str], Mapping[str, Any]]:
    """The classes and the facts of an entry of extension-node-map.json."""
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], list):
        return [], {}
    facts = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
    return [name for name in entry[0] if isinstance(name, str)], facts


def _plain(url: str) -> str:
    """A repository's URL in the form in which two are compared."""
    return re.sub(r"(\.git)?/*$", "", url.strip()).lower()


def _literal_ending(pattern: Any) -> str:
    r"""The ending that a pattern such as ` \(rgthree\)$` means; empty for any other pattern.

    Other patterns fit classes of other packs too. No pattern is run as a regular expression: it
    comes from the network, and class names come from clients.
    """
    if not isinstance(pattern, str) or not pattern.endswith("$"):
        return ""
    literal = re.sub(r"\\([^\w])", r"\1", pattern[:-1])
    unescaped = re.sub(r"\\[^\w]", "", pattern[:-1])
    if len(literal.strip()) < SHORTEST_PATTERN or re.search(r"[\\^$.|?*+()\[\]{}]", unescaped):
        return ""
    return literal
