"""The virtual environment `.venv` and the packages in it, installed by uv from hash-checked lock files.

Owns `.venv` and its stamp.  The stamp is written when all is in place and taken away before anything changes: an
environment without a right one is unfinished, is removed and built anew, which uv's cache makes quick.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from comfy_common import paths
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.requirements import Unmet
from comfy_setup import uv
from comfy_setup.child import Runner
from comfy_setup.marker import file_hash, read_stamp, write_stamp

LOCKS = paths.REPO / "requirements"
STAMP = paths.VENV / "comfy_setup.json"
# What the environment held before custom nodes added to it, as lines "name==version".
INSTALLED = paths.VENV / "installed.txt"
# The lock of the worker's packages by the CUDA version that torch is built for.
WORKER_LOCKS = {"13": LOCKS / "worker.lock", "12": LOCKS / "worker-cuda12.lock"}
DEFAULT_CUDA = "13"
SITE_PACKAGES = "lib/python*/site-packages"
# A ComfyUI that asks for more than is locked may bring packages of its own, but no other ones of these.
HELD = ("torch", "torchvision", "torchaudio", "transformers")


def chosen_cuda() -> str:
    """Say which CUDA version the environment's torch is built for: a key of `WORKER_LOCKS`."""
    return read_stamp(STAMP).get("cuda", DEFAULT_CUDA)


def ready(cuda: str = "", dev: bool = False) -> bool:
    """Tell whether the environment is finished and made from the lock files as they are.

    Args:
        cuda: which CUDA version its torch must be built for, empty if any will do.
        dev: whether the packages for tests and checks must be there too.
    """
    have = read_stamp(STAMP)
    dev_hash = file_hash(LOCKS / "dev.lock")
    return (
        cuda in ("", chosen_cuda())
        and have.get("worker") == file_hash(WORKER_LOCKS[chosen_cuda()])
        and have.get("dev", "" if dev else dev_hash) == dev_hash
        and have.get("python") == _venv_version()
    )


def check_python() -> None:
    """Make sure that this Python can make virtual environments.

    Raises:
        SetupError: it cannot.
    """
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"this Python ({sys.executable}) comes without its venv module: install it (Debian and Ubuntu: "
            f"`apt install python{version}-venv`) and call again"
        )


def make_environment(console: Console, runner: Runner) -> None:
    """Make the virtual environment anew, with uv in it; a former one is removed.

    Args:
        console: where it is told.
        runner: runs pip.

    Raises:
        SetupError: one line for the user.
    """
    check_python()
    python: str = getattr(sys, "_base_executable", sys.executable)  # we may run inside the environment that goes
    with console.step(f"Making the Python environment {paths.VENV.name}") as step:
        shutil.rmtree(paths.VENV, ignore_errors=True)
        runner.run(step, [python, "-m", "venv", paths.VENV])
        pip: list[str | Path] = [
            paths.VENV_PYTHON,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
        ]
        runner.run(step, [*pip, "--require-hashes", "-r", LOCKS / "uv.lock"])


def install_packages(console: Console, runner: Runner, cuda: str, dev: bool, requirements: Path | None) -> None:
    """Install what is locked, and what this ComfyUI asks for beyond that.

    Args:
        console: where it is told.
        runner: runs uv.
        cuda: a key of `WORKER_LOCKS`.
        dev: also the packages for tests and checks.
        requirements: this ComfyUI's requirements.txt, None if it has none.

    Raises:
        SetupError: one line for the user.
    """
    have = read_stamp(STAMP)
    want = {"comfyui": file_hash(requirements) if requirements else ""}
    if have and want.items() <= have.items() and (not dev or "dev" in have):
        return
    STAMP.unlink(missing_ok=True)
    worker = WORKER_LOCKS[cuda]
    locks = [worker] + ([LOCKS / "dev.lock"] if dev or "dev" in have else [])
    with console.step("Installing the packages (4 GB to download the first time)") as step:
        from_locks = [part for lock in locks for part in ("-r", lock)]
        # The locks are complete, but for what comfy-cli asks for in vain.
        uv_install(runner, step, "--require-hashes", "--no-deps", "--compile-bytecode", *from_locks)
    if requirements and unmet_requirements(requirements):
        with console.step(f"Installing what {requirements} asks for on top") as step:
            constraints = paths.CACHE / "held.txt"
            constraints.write_text("".join(f"{line}\n" for line in held(worker)))
            uv_install(runner, step, "--compile-bytecode", "-r", requirements, "-c", constraints)
    INSTALLED.write_text("".join(f"{line}\n" for line in installed()))
    dev_entry = {lock.stem: file_hash(lock) for lock in locks[1:]}
    entries = {"cuda": cuda, "worker": file_hash(worker), "python": _venv_version()}
    write_stamp(STAMP, {**entries, **dev_entry, **want})


def unmet_requirements(requirements: Path) -> list[Unmet]:
    """List the requirements of a file that the environment does not meet.

    Args:
        requirements: a requirements.txt.

    Returns:
        Nothing where there is no environment: then more than that is missing.
    """
    command: list[str | Path] = [paths.VENV_PYTHON, "-B", "-m", "comfy_common.requirements", requirements]
    try:
        found = subprocess.run(command, cwd=paths.REPO, capture_output=True, text=True)
    except OSError:
        return []
    return [Unmet(*line.split("\t")) for line in found.stdout.splitlines()]


def uv_install(runner: Runner, step: Step, *arguments: str | Path) -> None:
    """Call `uv pip install` for the virtual environment, with pip's settings.

    Args:
        runner: runs it.
        step: shows its progress.
        arguments: what to install, and how.

    Raises:
        SetupError: it failed.
    """
    pip_config = runner.run(step, [paths.VENV_PYTHON, "-m", "pip", "config", "list"])
    settings = uv.settings_from_pip(pip_config, runner.environ)
    install: list[str | Path] = [
        paths.VENV / "bin" / "uv",
        "pip",
        "install",
        "--color",
        "never",
        "--python",
        paths.VENV_PYTHON,
    ]
    runner.run(step, [*install, *arguments], uv.Progress(step).read, settings)


def installed() -> list[str]:
    """Give what the environment holds now.

    Returns:
        Lines "name==version", sorted.
    """
    names = (folder.name.removesuffix(".dist-info") for folder in paths.VENV.glob(f"{SITE_PACKAGES}/*.dist-info"))
    return sorted("==".join(name.rsplit("-", 1)) for name in names)


def held(lock: Path) -> list[str]:
    """Give the packages that no ComfyUI may replace.

    Args:
        lock: one of `WORKER_LOCKS`.

    Returns:
        Lines "name==version", as locked.
    """
    locked = lock.read_text()
    return [line for name in HELD for line in re.findall(rf"^{name}==[^\s;]+", locked, re.MULTILINE)]


def _venv_version() -> str:
    """Ask the environment's Python for its version; its base may have been removed or replaced."""
    try:
        asked: list[str | Path] = [
            paths.VENV_PYTHON,
            "-I",
            "-S",
            "-c",
            "import sys; print('%d.%d' % sys.version_info[:2])",
        ]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
