"""Prints the layers of an image and their sizes as a Markdown table; standard library only.

    docker history --no-trunc --human=false --format '{{json .}}' IMAGE | layers.py
    buildah inspect --type image IMAGE | layers.py --buildah STORAGE/overlay-layers/layers.json
    ... | layers.py --page docs/deploy.md

The last form also replaces the table in a page, between `<!-- layers -->` and `<!-- /layers -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Layer", "main", "of_buildah", "of_docker", "table"]

# By a part of the command that makes a layer, what the layer holds.
CONTENTS = {
    r"useradd --create-home": "ca-certificates, python3, tini",
    r"comfy_setup install --cuda": "Python packages and ComfyUI, with bytecode",
    r"comfy_setup models|models models|models\.txt": "models",
    r"custom_nodes\.txt": "custom nodes",
    r"compileall": "the worker's bytecode",
    r"requirements|comfy_common|comfy_setup": "lock files and `comfy_setup`",
    r"COPY \. |COPY dir:|COPY multi:": "the worker",
    r"WORKDIR": "",
}
BASE = "the base image"
# Smaller rows would say 0 MB.
SMALLEST = 500_000
TABLE = re.compile(r"(<!-- layers -->\n).*?(<!-- /layers -->)", re.DOTALL)

# The command that makes a layer, and the layer's size in bytes.
Layer = tuple[str, int]


def of_docker(text: str) -> list[Layer]:
    """Read the output of `docker history`, whose newest layer is first."""
    entries = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [(entry["CreatedBy"], int(entry["Size"])) for entry in reversed(entries)]


def of_buildah(inspected: Mapping[str, Any], storage: Iterable[Mapping[str, Any]]) -> list[Layer]:
    """Read the output of `buildah inspect`, and the list of layers in its storage."""
    sizes = {layer.get("diff-digest"): int(layer.get("diff-size", 0)) for layer in storage}
    image = inspected["OCIv1"]
    made = [entry for entry in image["history"] if not entry.get("empty_layer")]
    commands = [entry.get("created_by", "") for entry in made]
    return [
        (command, sizes.get(digest, 0))
        for digest, command in zip(image["rootfs"]["diff_ids"], commands, strict=False)
    ]


def table(layers: Sequence[Layer]) -> str:
    """Write the table. Layers of the same contents are added up; those of no size are left out."""
    sizes: dict[str, int] = {}
    for number, (command, size) in enumerate(layers):
        contents = BASE if number == 0 else _contents(command)
        if contents and size:
            sizes[contents] = sizes.get(contents, 0) + size
    shown = {contents: size for contents, size in sizes.items() if size >= SMALLEST}
    rows = [f"| {contents} | {size / 1e6:.0f} MB |\n" for contents, size in shown.items()]
    total = f"| in all | {sum(sizes.values()) / 1e6:.0f} MB |\n"
    return "".join(["| layer | size |\n| --- | --- |\n", *rows, total])


def _contents(command: str) -> str:
    for pattern, contents in CONTENTS.items():
        if re.search(pattern, command):
            return contents
    return BASE


def main(arguments: Sequence[str]) -> int:
    """Read the layers from standard input, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buildah", type=Path, metavar="LAYERS_JSON")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args(arguments)
    text = sys.stdin.read()
    if options.buildah:
        layers = of_buildah(json.loads(text), json.loads(options.buildah.read_text()))
    else:
        layers = of_docker(text)
    made = table(layers)
    sys.stdout.write(made)
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        if not TABLE.search(page):
            sys.stderr.write(f"{options.page} has no <!-- layers --> for the table\n")
            return 1
        written = TABLE.sub(lambda match: f"{match[1]}{made}{match[2]}", page)
        options.page.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
