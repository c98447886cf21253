"""Prints the notes of a release, which are a section of CHANGELOG.md.

The release workflow calls ``python3 -m docs.tools.release_notes VERSION``. It fails if the tag, the
code and the changelog do not agree on the version. Standard library only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from comfy_common.version import VERSION

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


def notes(version: str, changelog: str, code_version: str = VERSION) -> str:
    """Return the section of a version.

    Args:
        version: of the tag, such as ``1.0.0``.
        changelog: the text of CHANGELOG.md.
        code_version: what the code says.

    Raises:
        ValueError: the code has another version, or the changelog has no dated section for it.
    """
    if version != code_version:
        raise ValueError(f"the tag is {version}, and comfy_common/version.py has {code_version}")
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no section `## {version} (YYYY-MM-DD)`")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(notes(sys.argv[1], CHANGELOG.read_text(encoding="utf-8")))
    except ValueError as error:
        sys.exit(str(error))
