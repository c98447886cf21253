"""Writes docs/licences.md: the licence of each package in the lock files of the image.

Usage: `.venv/bin/python -m docs.tools.make_licences`. The licences come from the metadata of the
installed packages. A package of a lock that is not installed here keeps the licence that the page
has, since each machine has the packages of one lock only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata

from packaging.markers import Marker

from comfy_common.console import Console
from comfy_common.paths import REPO

__all__ = ["LOCKS", "PAGE", "licence_of", "locked_names", "make_page", "read_page", "stale_rows"]

PAGE = REPO / "docs" / "licences.md"
# By lock, what the page calls it.
LOCKS = {"worker.lock": "CUDA 13", "worker-cuda12.lock": "CUDA 12"}
LOCKED = re.compile(r"^([\w.-]+)==[^\s;]+(?: ; (?P<marker>[^\\\n]*))?", re.MULTILINE)
# Debian bookworm, the base of the image.
IMAGE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
ROW = re.compile(r"^\| `([\w.-]+)` \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
UNKNOWN = "not stated"
LONGEST = 60
# What the metadata leaves out. The licences of the wheels themselves say it.
STATED = {
    "comfy-aimdo": "GPL-3.0",
    "comfyui-frontend-package": "GPL-3.0-only",
    "cookiecutter": "BSD-3-Clause",
    "cuda-toolkit": "NVIDIA's CUDA licence",
    "nvidia-nvtx": "Apache-2.0",
    "nvidia-nvtx-cu12": "Apache-2.0",
    "torchvision": "BSD-3-Clause",
}
NVIDIA = "NVIDIA's own, see the text in the package"
HEAD = """\
# Licences

The worker is [GPL-3.0-or-later](https://www.gnu.org/licenses/gpl-3.0.html), and so is ComfyUI
(GPL-3.0). An image also contains:

- Debian's packages; `/usr/share/doc/*/copyright` in the image has their licences;
- the Python packages of the lock file, listed below; `licenses` in each package's `.dist-info`
  folder has the texts;
- node packs, if `custom_nodes.txt` names some: each has its own licence;
- models, if the image was built with `MODELS`: `licence:` in `models.txt`, or the model's page,
  says what is allowed. Some forbid commercial use.

`.venv/bin/python -m docs.tools.make_licences` makes this list from the packages' own metadata.

| package | licence | in the image for |
| --- | --- | --- |
"""


def locked_names() -> dict[str, list[str]]:
    """The packages of the lock files that the image has, each with what it is for."""
    names: dict[str, list[str]] = {}
    for lock, image in LOCKS.items():
        text = (REPO / "requirements" / lock).read_text(encoding="utf-8")
        for match in LOCKED.finditer(text):
            marker = match["marker"]
            if marker and not Marker(marker).evaluate(IMAGE):
                continue
            images = names.setdefault(match[1], [])
            if image not in images:
                images.append(image)
    return dict(sorted(names.items()))


def licence_of(name: str) -> str | None:
    """The licence of an installed package, as its metadata says; None if it is not installed.

    Args:
        name: of the package.
    """
    if name in STATED:
        return STATED[name]
    # Those for CUDA 12 and 13 are the same libraries, and no machine has both.
    if name.startswith("nvidia-"):
        return NVIDIA
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return None
    return next(_stated(found), UNKNOWN)


def _stated(found: Message) -> Iterator[str]:
    """The licences that metadata names, the most exact first."""
    if expression := found.get("License-Expression"):
        yield expression
    text = " ".join(str(found.get("License") or "").split())
    if 0 < len(text) <= LONGEST and text.lower() not in ("unknown", "license"):
        yield text
    classifiers = [str(entry) for entry in found.get_all("Classifier") or ()]
    names = [entry.rpartition("::")[2].strip() for entry in classifiers if "License ::" in entry]
    if names:
        yield ", ".join(names)


def read_page() -> dict[str, tuple[str, str]]:
    """The rows of the page: by package, the licence and what it is for."""
    if not PAGE.is_file():
        return {}
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {name: (licence, images) for name, licence, images in rows}


def make_page() -> str:
    """Write the page's text."""
    former = read_page()
    rows = []
    for name, images in locked_names().items():
        licence = licence_of(name) or former.get(name, (UNKNOWN, ""))[0]
        rows.append(f"| `{name}` | {licence.replace('|', '/')} | {' and '.join(images)} |\n")
    return HEAD + "".join(rows)


def stale_rows() -> list[str]:
    """The packages whose rows are missing, wrong, or of no lock."""
    written = read_page()
    rows = ROW.findall(make_page())
    current = {name: (licence, images) for name, licence, images in rows}
    both = sorted({*written, *current})
    return [name for name in both if written.get(name) != current.get(name)]


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
    for package, (stated, _) in read_page().items():
        if stated == UNKNOWN:
            Console(sys.stderr).say(f"{package}: its metadata states no licence")
