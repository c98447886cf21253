"""The editor files of ComfyUI 0.3.75's own templates, which the recorded exports of its frontend belong to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comfy_common import paths

LOCK = paths.REPO / "requirements" / "editor-templates.lock"
# The exports, and which package has which editor file.
RECORDED = paths.REPO.parent / "shared" / "ui_to_api"


def official_templates() -> Iterator[tuple[str, Any]]:
    """Yield the name and the content of each of them, as far as exports are recorded."""
    folder = _packages()
    packages: dict[str, str] = json.loads((RECORDED / "index.json").read_text(encoding="utf-8"))
    for name, package in packages.items():
        yield name, json.loads((folder / package / "templates" / name).read_text(encoding="utf-8"))


def _packages() -> Path:
    """Fetch the packages once. The worker's own lock has newer ones, of which ComfyUI needs any."""
    folder = paths.CACHE / f"test-{LOCK.stem}"
    if not folder.is_dir():
        paths.CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=paths.CACHE) as scratch:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "-r",
                str(LOCK),
            ]
            subprocess.run([*pip, "--target", f"{scratch}/part", "-r", str(LOCK)], check=True)
            for picture in Path(scratch).rglob("*.*"):
                if picture.is_file() and picture.suffix != ".json":
                    picture.unlink()  # 400 MB that no test looks at
            shutil.move(f"{scratch}/part", folder)
    return folder
