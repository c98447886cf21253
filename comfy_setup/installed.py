"""The program `comfy-worker`, which `pip install .` makes.

The worker lives in a folder of its own: its packages, models, node packs and templates lie beside
its code. Therefore this program copies the installed files into such a folder, and continues there
as `python3 -m comfy_setup`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.exit_codes import FAILED
from comfy_setup.arguments import PROGRAM

__all__ = ["home_dir", "main", "update_home"]

PACKAGES = ("comfy_common", "comfy_local", "comfy_setup", "comfy_worker")
# The package with the files that are beside the code in a checkout.
CHECKOUT = "comfy_worker_checkout"
STAMP = ".installed"
# The files that `nodes add` and `check --lock` write.
LISTS = ("custom_nodes.txt", "models.txt")


def home_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of an installed worker.

    Args:
        environ: `COMFY_WORKER_HOME` names another folder than `~/.comfy-worker`.
    """
    return Path(environ.get("COMFY_WORKER_HOME") or "~/.comfy-worker").expanduser().absolute()


def update_home(site: Path, home: Path) -> None:
    """Copy the installed files into the worker's folder, unless they are there.

    Other files in the folder stay: models, pictures, and templates that the user has added. So do
    the lists of models and node packs, once the user has changed them.

    Args:
        site: where pip has installed the packages.
        home: created if it is missing.

    Raises:
        OSError: the folder cannot be written.
    """
    sources = dict(_sources(site))
    stamp = hashlib.sha256(str(site).encode())
    for source, target in sources.items():
        status = source.stat()
        stamp.update(f"{target} {status.st_size} {status.st_mtime_ns}\n".encode())
    marker = home / STAMP
    if marker.is_file() and marker.read_text() == stamp.hexdigest():
        return
    for name in PACKAGES:  # a module that a newer version lacks must not stay
        shutil.rmtree(home / name, ignore_errors=True)
    for source, target in sources.items():
        path = home / target
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, path)
    marker.write_text(stamp.hexdigest())


def _copy(source: Path, path: Path) -> None:
    """Copy a file, unless it is a list that the user has changed."""
    if path.name in LISTS:
        installed = path.with_name(f".{path.name}{STAMP}")
        is_known = installed.is_file() and path.is_file()
        is_changed = is_known and installed.read_bytes() != path.read_bytes()
        shutil.copy2(source, installed)
        if is_changed:
            return
    shutil.copy2(source, path)


def main() -> NoReturn:
    """Run `comfy-worker`; in a checkout the same as `python3 -m comfy_setup`."""
    environ = {**os.environ, PROGRAM: "comfy-worker"}
    root = paths.REPO
    if (root / CHECKOUT).is_dir():
        home = home_dir(environ)
        try:
            update_home(root, home)
        except OSError as error:
            Console(sys.stderr).say(
                f"Error: {home} cannot be written: {error.strerror}; COMFY_WORKER_HOME names "
                "another folder"
            )
            raise SystemExit(FAILED) from error
        root = home
    # The first entry wins, so the copy is imported and not the installed package.
    others = environ.get("PYTHONPATH", "")
    environ["PYTHONPATH"] = f"{root}{os.pathsep}{others}" if others else str(root)
    _become([sys.executable, "-m", "comfy_setup", *sys.argv[1:]], environ)


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    os.execve(command[0], command, environ)  # noqa: S606 (no shell is the point)


def _sources(site: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each installed file with its path in a checkout."""
    for name in (*PACKAGES, CHECKOUT):
        for source in sorted((site / name).rglob("*")):
            is_ours = source.is_file() and "__pycache__" not in source.parts
            if not is_ours:
                continue
            target = source.relative_to(site)
            if name == CHECKOUT:
                target = source.relative_to(site / name)
            yield source, target
