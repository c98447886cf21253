"""uv, which installs the packages: pip's settings handed on to it, its output read as progress.

It knows nothing of which packages there are or where they go.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy_common.console import Step
from comfy_common.text import size

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

# pip's settings and uv's variables of the same meaning; uv does not read pip's.
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
    """Hand pip's settings on to uv: index, certificates, proxy and the like.

    Args:
        pip_config: what `pip config list` printed.
        environ: the environment; what is set there for uv already stays as it is.

    Returns:
        Environment variables for uv.
    """
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the later wins, as with pip
        for key, value in re.findall(rf"^{section}\.([a-z-]+)=(.+)$", pip_config, re.MULTILINE):
            variable = VARIABLES.get(key, "")
            taken = {variable, OTHER_NAMES.get(variable, variable)} & environ.keys()
            words = str(ast.literal_eval(value)).split()
            if variable and words and not taken:
                found[variable] = ("," if variable == "UV_FIND_LINKS" else " ").join(words)
    if "UV_INDEX" in found and "UV_INDEX_STRATEGY" not in environ:
        # As pip does: any index may hold any of the files; the locked hashes say which file is the right one.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


@dataclass
class Progress:
    """Turns the lines that uv prints into how far a step is.

    Args:
        step: where it is shown.
    """

    step: Step
    sizes: dict[str, float] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)

    def read(self, line: str) -> None:
        """Take in one line.

        Args:
            line: of uv's output, as `Downloading torch (873.1MiB)`, ` Downloaded torch`, `Prepared 3 packages`.
        """
        if match := re.match(r"Downloading (\S+) \(([\d.]+)([KMG]iB)\)", line):
            self.sizes[match[1]] = float(match[2]) * UNITS[match[3]]
            self._count()
        elif match := re.match(r"\s*Downloaded (\S+)", line):
            self.loaded.add(match[1])
            self._count()
        elif line.startswith("Prepared "):
            self.step.progress("putting them in place")
        elif match := re.match(r"Installed (\d+) ", line):
            self.step.progress(f"{match[1]} packages are in place, compiling them to bytecode")

    def _count(self) -> None:
        loaded = sum(self.sizes.get(name, 0.0) for name in self.loaded)
        total = sum(self.sizes.values())
        note = f"{len(self.loaded)} of {len(self.sizes)} downloads, {size(loaded)} of {size(total)}"
        self.step.progress(note, loaded / total if total else None)
