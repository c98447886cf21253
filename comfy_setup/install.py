"""Installs everything in order: environment, ComfyUI, packages, bytecode, custom nodes.

Every step is skipped if it is finished already. A step may be killed at any point: the next call
repairs what it left.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.text import size
from comfy_setup import comfyui, node_packs, packages
from comfy_setup.child import Runner
from comfy_setup.comfyui import Choice

FIRST_INSTALL_BYTES = 9e9


def install(
    console: Console, environ: Mapping[str, str], choice: Choice, cuda: str = "", dev: bool = False
) -> None:
    """Install everything that is missing.

    Args:
        console: shows the steps.
        environ: the environment; `COMFYUI_DIR` names a ComfyUI that is used unchanged.
        choice: which ComfyUI to install.
        cuda: the CUDA version that torch is built for, a key of `packages.WORKER_LOCKS`; empty to
            keep the installed one, or to install the default.
        dev: also install the packages for tests and checks.

    Raises:
        SetupError: a step failed; one line for the user.
        OSError: the disk failed.
    """
    with install_lock(console) as lock:
        runner = Runner(lock, paths.CACHE / "install.log", environ)
        cuda = cuda or packages.chosen_cuda()
        # A link leads to the environment of another checkout, which must not change.
        is_linked = paths.VENV.is_symlink()
        is_ready = packages.ready(cuda, dev and is_linked)
        if is_linked and not is_ready:
            console.say(
                f"{paths.VENV.name} is a link to {paths.VENV.readlink()}: "
                "it is used unchanged, although it does not match the lock files"
            )
        elif not is_ready:
            check_disk(shutil.disk_usage(paths.REPO).free, environ)
            packages.make_environment(console, runner)
        comfyui.install_comfyui(console, runner, choice)
        if not is_linked:
            packages.install_packages(console, runner, cuda, dev, comfyui.requirements(environ))
        comfyui.compile_bytecode(console, runner)
        node_packs.install_packs(console, runner)
    console.say(
        f"Ready: Python environment {paths.VENV.name}, ComfyUI {comfyui.described(environ)}"
    )


def check_disk(free: float, environ: Mapping[str, str]) -> None:
    """Make sure that a first install fits before it downloads gigabytes.

    Args:
        free: free bytes on the disk of the repository.
        environ: names uv's cache; files in it are not downloaded again.

    Raises:
        SetupError: the install does not fit.
    """
    if free >= FIRST_INSTALL_BYTES:
        return
    if free + _cached_bytes(environ) < FIRST_INSTALL_BYTES:
        raise SetupError(
            f"the disk of {paths.REPO} has {size(free)} free and a first install needs about "
            f"{size(FIRST_INSTALL_BYTES)}: free some space, or move the checkout to another disk"
        )


def _cached_bytes(environ: Mapping[str, str]) -> int:
    """The size of uv's cache if it is on the disk of the repository."""
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/")) / ".cache"
    cache = Path(environ.get("UV_CACHE_DIR") or Path(caches) / "uv")
    if not cache.is_dir() or cache.stat().st_dev != paths.REPO.stat().st_dev:
        return 0
    return sum(entry.stat().st_size for entry in cache.rglob("*") if entry.is_file())


@contextmanager
def install_lock(console: Console) -> Iterator[IO[bytes]]:
    """Keep other processes from installing at the same time; waits for one that does.

    Args:
        console: says if this call waits.

    Yields:
        The open file with the lock. A process that inherits the file holds the lock too.
    """
    paths.CACHE.mkdir(exist_ok=True)
    with (paths.CACHE / "install.lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say("Another installation is running here: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
