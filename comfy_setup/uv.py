"""Translates pip's settings for uv, and uv's output into progress."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy_common.console import Step
from comfy_common.text import size

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

# By pip's setting, uv's variable with the same meaning. uv does not read pip's settings.
VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
}
OTHER_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}


def settings_from_pip(pip_config: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Translate pip's settings for uv: index, certificates, proxy and others.

    Args:
        pip_config: the output of `pip config list`.
        environ: the environment; uv's variables in it take precedence.

    Returns:
        Environment variables for uv.
    """
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # later ones win, as in pip
        for key, value in re.findall(rf"^{section}\.([a-z-]+)=(.+)$", pip_config, re.MULTILINE):
            variable = VARIABLES.get(key, "")
            taken = {variable, OTHER_NAMES.get(variable, variable)} & environ.keys()
            words = str(ast.literal_eval(value)).split()
            if variable and words and not taken:
                found[variable] = ("," if variable == "UV_FIND_LINKS" else " ").join(words)
    if "UV_INDEX" in found and "UV_INDEX_STRATEGY" not in environ:
        # Like pip, search all indexes for each file. The locked hashes select the right file.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


@dataclass
class Progress:
    """Turns the lines of uv's output into progress.

    Args:
        step: shows the progress.
    """

    step: Step
    sizes: dict[str, float] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)

    def read(self, line: str) -> None:
        """Read one line.

        Args:
            line: such as `Downloading torch (873.1MiB)`, ` Downloaded torch`, `Prepared 3
                packages`.
        """
        if match := re.match(r"Downloading (\S+) \(([\d.]+)([KMG]iB)\)", line):
            self.sizes[match[1]] = float(match[2]) * UNITS[match[3]]
            self._count()
        elif match := re.match(r"\s*Downloaded (\S+)", line):
            self.loaded.add(match[1])
            self._count()
        elif line.startswith("Prepared "):
            self.step.progress("installing them")
        elif match := re.match(r"Installed (\d+) ", line):
            self.step.progress(f"{match[1]} packages are installed, compiling them to bytecode")

    def _count(self) -> None:
        loaded = sum(self.sizes.get(name, 0.0) for name in self.loaded)
        total = sum(self.sizes.values())
        note = f"{len(self.loaded)} of {len(self.sizes)} downloads, {size(loaded)} of {size(total)}"
        self.step.progress(note, loaded / total if total else None)
