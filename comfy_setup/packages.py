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

from comfy_setup import paths, uv
from comfy_setup.child import Runner
from comfy_setup.console import Console, SetupError, Step
from comfy_setup.stamp import file_hash, read_stamp, write_stamp

LOCKS = paths.REPO / "requirements"
STAMP = paths.VENV / "comfy_setup.json"
# A ComfyUI that is not the pinned one may bring packages of its own, but no other ones of these.
HELD = ("torch", "torchvision", "torchaudio", "transformers")


def ready(dev: bool = False) -> bool:
    """Tell whether the environment is finished and made from the lock files as they are.

    Args:
        dev: whether the packages for tests and checks must be there too.
    """
    have = read_stamp(STAMP)
    dev_hash = file_hash(LOCKS / "dev.lock")
    return (
        have.get("worker") == file_hash(LOCKS / "worker.lock")
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


def install_packages(console: Console, runner: Runner, dev: bool, requirements: Path | None) -> None:
    """Install what is locked, and what a ComfyUI that is not the pinned one needs on top.

    Args:
        console: where it is told.
        runner: runs uv.
        dev: also the packages for tests and checks.
        requirements: that ComfyUI's requirements.txt, None for the pinned one.

    Raises:
        SetupError: one line for the user.
    """
    have = read_stamp(STAMP)
    want = {"comfyui": file_hash(requirements) if requirements else ""}
    if have and want.items() <= have.items() and (not dev or "dev" in have):
        return
    STAMP.unlink(missing_ok=True)
    locks = [LOCKS / "worker.lock"] + ([LOCKS / "dev.lock"] if dev or "dev" in have else [])
    with console.step("Installing the packages (4 GB to download the first time)") as step:
        from_locks = [part for lock in locks for part in ("-r", lock)]
        uv_install(runner, step, "--require-hashes", "--compile-bytecode", *from_locks)
    if requirements:
        with console.step(f"Installing what {requirements} asks for on top") as step:
            constraints = paths.CACHE / "held.txt"
            constraints.write_text("".join(f"{line}\n" for line in held()))
            uv_install(runner, step, "--compile-bytecode", "-r", requirements, "-c", constraints)
    entries = {lock.stem: file_hash(lock) for lock in locks}
    write_stamp(STAMP, {**entries, **want, "python": _venv_version()})


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


def held() -> list[str]:
    """Give the packages that no ComfyUI may replace.

    Returns:
        Lines "name==version", as locked.
    """
    locked = (LOCKS / "worker.lock").read_text()
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
