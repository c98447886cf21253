"""Knows which ComfyUI this is, and what follows from its version: flags, routes and the cache.

Flags are looked up in ComfyUI's own source, not in a table of versions: a version that nobody here
has seen then starts with the flags that it does have.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_common.comfyui_version import parse_version

__all__ = ["ComfyUIVersion"]

log = logging.getLogger(__name__)

ARGUMENTS = Path("comfy/cli_args.py")
FLAG = re.compile(r"""add_argument\(\s*["'](--[\w-]+)["']""")
# Where a ComfyUI that respects the container's memory limit reads it. Up to 0.33 it reads the
# host's memory only (upstream issue 14938).
MEMORY_SOURCES = (Path("comfy/memory_management.py"), Path("comfy/model_management.py"))

CANCEL_ROUTE_SINCE = (0, 33)

GB = 1e9
# How many node results are kept. Too few, and a second template drives out the first one's models.
RESULTS_PER_GB = 2
FEWEST_RESULTS = 60
MOST_RESULTS = 200
# How much memory a cache that watches the memory leaves free.
HEADROOM_SHARE = 0.1
LEAST_HEADROOM_GB = 2.0
MOST_HEADROOM_GB = 10.0


@dataclass(frozen=True)
class ComfyUIVersion:
    """One version of ComfyUI; look it up with :meth:`in_folder`.

    Attributes:
        name: such as ``0.33.0``; empty if the folder does not say.
        flags: the command line flags that it declares; None if they are not known.
        respects_container_memory: whether its cache keeps to the container's memory limit.
    """

    name: str = ""
    flags: frozenset[str] | None = None
    respects_container_memory: bool = False

    @classmethod
    def in_folder(cls, comfyui_dir: Path) -> ComfyUIVersion:
        """Look up the version and its facts in ComfyUI's folder."""
        version_file = _source(comfyui_dir / "comfyui_version.py")
        name = re.search(r'__version__ = "([^"]+)"', version_file)
        flags = frozenset(FLAG.findall(_source(comfyui_dir / ARGUMENTS)))
        memory_sources = (_source(comfyui_dir / path) for path in MEMORY_SOURCES)
        return cls(
            name=name[1] if name else "",
            flags=flags or None,
            respects_container_memory=any("cgroup" in source for source in memory_sources),
        )

    @property
    def has_cancel_route(self) -> bool:
        """Whether ``POST /api/jobs/{id}/cancel`` exists."""
        return parse_version(self.name) >= CANCEL_ROUTE_SINCE

    def has_flag(self, flag: str) -> bool:
        """Whether ComfyUI takes a flag; True if its flags are not known."""
        return self.flags is None or flag in self.flags

    def api_node_flags(self) -> list[str]:
        """Return the flags that leave out the nodes of paid services."""
        # From 0.38 on the older name also stands for "--offline".
        if self.flags is not None and "--disable-partner-nodes" in self.flags:
            return ["--disable-partner-nodes"]
        return ["--disable-api-nodes"]

    def asset_flags(self) -> list[str]:
        """Return the flags that turn the asset database off where it is on by default.

        It reads all model files at start, and the worker does not use it.
        """
        if self.flags is not None and "--disable-assets" in self.flags:
            return ["--disable-assets"]
        return []

    def cache_flags(self, memory_bytes: float, args: Sequence[str] = ()) -> list[str]:
        """Return the flags for a cache that keeps models when templates alternate.

        ComfyUI's own default forgets the models of a template when another one runs (0.3.75), or
        measures the host's memory instead of the container's (0.33).

        Args:
            memory_bytes: how much memory the container may use.
            args: the operator's flags; a cache that they choose is left alone.
        """
        if any(arg.startswith(("--cache", "--high-r")) for arg in args):
            return []
        memory_gb = memory_bytes / GB
        if self.respects_container_memory and self.has_flag("--cache-ram"):
            headroom_gb = min(max(memory_gb * HEADROOM_SHARE, LEAST_HEADROOM_GB), MOST_HEADROOM_GB)
            return ["--cache-ram", f"{headroom_gb:.1f}"]
        results = min(max(int(memory_gb * RESULTS_PER_GB), FEWEST_RESULTS), MOST_RESULTS)
        return ["--cache-lru", str(results)]

    def supported(self, options: Iterable[Sequence[str]]) -> list[str]:
        """Keep the options that this ComfyUI takes, and log the names of the others.

        Args:
            options: each a flag, followed by its values.
        """
        words: list[str] = []
        for option in options:
            if self.has_flag(option[0]):
                words += option
            else:
                log.warning(
                    "ComfyUI %s does not have the flag %s; it starts without it",
                    self.name,
                    option[0],
                    extra={"action": "comfyui.flag_missing"},
                )
        return words


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
