"""Getting the machine ready, in order: environment, ComfyUI, packages, bytecode, custom nodes.

Every step looks first whether it is needed, and can be killed at any point: the next call repairs what it left.
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
    """Get the machine ready; what is there already is kept.

    Args:
        console: where the story is told.
        environ: the environment; `COMFYUI_DIR` names a ComfyUI to use as it is.
        choice: which ComfyUI.
        cuda: which CUDA version torch is built for, a key of `packages.WORKER_LOCKS`; empty: as it is, else the
            default.
        dev: also what tests and checks need.

    Raises:
        SetupError: one line for the user.
        OSError: the disk did not take a file.
    """
    with install_lock(console) as lock:
        runner = Runner(lock, paths.CACHE / "install.log", environ)
        cuda = cuda or packages.chosen_cuda()
        # A link leads to another checkout's environment, which other processes use: nothing here changes it.
        is_linked = paths.VENV.is_symlink()
        is_ready = packages.ready(cuda, dev and is_linked)
        if is_linked and not is_ready:
            where = paths.VENV.readlink()
            console.say(f"{paths.VENV.name} is a link to {where}: used as it is, though not made from these locks")
        elif not is_ready:
            check_disk(shutil.disk_usage(paths.REPO).free, environ)
            packages.make_environment(console, runner)
        comfyui.install_comfyui(console, runner, choice)
        if not is_linked:
            packages.install_packages(console, runner, cuda, dev, comfyui.requirements(environ))
        comfyui.compile_bytecode(console, runner)
        node_packs.install_packs(console, runner)
    console.say(f"Ready: Python environment {paths.VENV.name}, ComfyUI {comfyui.described(environ)}")


def check_disk(free: float, environ: Mapping[str, str]) -> None:
    """Make sure that a first install fits before gigabytes are fetched.

    Args:
        free: bytes free where the repository lies.
        environ: says where uv's cache is; what is in there need not come again.

    Raises:
        SetupError: it does not fit.
    """
    if free >= FIRST_INSTALL_BYTES:
        return
    home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/")) / ".cache"
    cache = Path(environ.get("UV_CACHE_DIR") or Path(home) / "uv")
    same_disk = cache.is_dir() and cache.stat().st_dev == paths.REPO.stat().st_dev
    cached = sum(entry.stat().st_size for entry in cache.rglob("*") if entry.is_file()) if same_disk else 0
    if free + cached < FIRST_INSTALL_BYTES:
        raise SetupError(
            f"the disk of {paths.REPO} has {size(free)} free and a first install needs about "
            f"{size(FIRST_INSTALL_BYTES)}: make room, or put the checkout on another disk"
        )


@contextmanager
def install_lock(console: Console) -> Iterator[IO[bytes]]:
    """Keep other processes from changing this machine at the same time; waits for one that does.

    Args:
        console: told if there is one.

    Yields:
        The open file that holds the lock; whoever inherits it holds the lock too.
    """
    paths.CACHE.mkdir(exist_ok=True)
    with (paths.CACHE / "install.lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say("Another install is at work here: waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
