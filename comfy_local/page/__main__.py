"""Writes the page as one HTML file: ``python -m comfy_local.page CATALOG.json PAGE.html``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from comfy_common.console import Console

from .single_file import single_file


def main(arguments: Sequence[str]) -> int:
    """Write the file.

    Returns:
        The exit code: 0, or 1 if a file cannot be read or written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m comfy_local.page",
        description="Writes the page of `serve` as one HTML file, for an endpoint on RunPod.",
    )
    parser.add_argument(
        "catalog",
        type=Path,
        help="the output of the command `catalog`, on the image that the endpoint runs",
    )
    parser.add_argument("page", type=Path, help="the HTML file to write")
    options = parser.parse_args(arguments)
    try:
        catalog = dict(json.loads(options.catalog.read_text(encoding="utf-8")))
        options.page.write_text(single_file(catalog), encoding="utf-8")
    except (OSError, ValueError, TypeError) as error:
        Console(sys.stderr).say(f"The page could not be written: {error}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
