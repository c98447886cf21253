"""Creates the virtual environment `.venv` and installs its packages from hash-checked lock files.

The environment has a marker, which is written at the end and removed before any change. An
environment without a valid marker is unfinished: it is removed and created again, which is quick
thanks to uv's cache.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from comfy_common import paths
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.requirements import Unmet
from comfy_setup import uv
from comfy_setup.child import Runner
from comfy_setup.marker import file_hash, read_marker, write_marker

LOCKS = paths.REPO / "requirements"
MARKER = paths.VENV / "comfy_setup.json"
# The packages of the environment before those of custom nodes, as lines "name==version".
INSTALLED = paths.VENV / "installed.txt"
# The lock of the worker's packages by the CUDA version that torch is built for.
WORKER_LOCKS = {"13": LOCKS / "worker.lock", "12": LOCKS / "worker-cuda12.lock"}
DEFAULT_CUDA = "13"
SITE_PACKAGES = "lib/python*/site-packages"
# A ComfyUI with further requirements may add packages, but may not replace these.
HELD = ("torch", "torchvision", "torchaudio", "transformers")


def chosen_cuda() -> str:
    """The CUDA version that the environment's torch is built for: a key of `WORKER_LOCKS`."""
    return read_marker(MARKER).get("cuda", DEFAULT_CUDA)


def ready(cuda: str = "", dev: bool = False) -> bool:
    """Whether the environment is finished and matches the lock files.

    Args:
        cuda: the CUDA version that torch must be built for; empty for any.
        dev: whether the packages for tests and checks must be installed too.
    """
    have = read_marker(MARKER)
    if cuda not in ("", chosen_cuda()):
        return False
    if have.get("worker") != file_hash(WORKER_LOCKS[chosen_cuda()]):
        return False
    dev_hash = file_hash(LOCKS / "dev.lock")
    if have.get("dev", "" if dev else dev_hash) != dev_hash:
        return False
    return have.get("python") == _venv_version()


def check_python() -> None:
    """Make sure that this Python can create virtual environments.

    Raises:
        SetupError: it cannot.
    """
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"this Python ({sys.executable}) lacks its venv module: install it (Debian and Ubuntu: "
            f"`apt install python{version}-venv`) and run this again"
        )


def make_environment(console: Console, runner: Runner) -> None:
    """Create the virtual environment with uv in it; a former one is removed.

    Args:
        console: shows the step.
        runner: runs pip.

    Raises:
        SetupError: it failed; one line for the user.
    """
    check_python()
    # This process may run in the environment that is removed.
    python: str = getattr(sys, "_base_executable", sys.executable)
    with console.step(f"Creating the Python environment {paths.VENV.name}") as step:
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


def install_packages(
    console: Console, runner: Runner, cuda: str, dev: bool, requirements: Path | None
) -> None:
    """Install the locked packages, and further requirements of the installed ComfyUI.

    Args:
        console: shows the steps.
        runner: runs uv.
        cuda: a key of `WORKER_LOCKS`.
        dev: also install the packages for tests and checks.
        requirements: ComfyUI's requirements.txt; None if it has none.

    Raises:
        SetupError: it failed; one line for the user.
    """
    have = read_marker(MARKER)
    want = {"comfyui": file_hash(requirements) if requirements else ""}
    if have and want.items() <= have.items() and (not dev or "dev" in have):
        return
    MARKER.unlink(missing_ok=True)
    worker = WORKER_LOCKS[cuda]
    locks = [worker] + ([LOCKS / "dev.lock"] if dev or "dev" in have else [])
    with console.step("Installing the packages (4 GB to download the first time)") as step:
        from_locks = [part for lock in locks for part in ("-r", lock)]
        # Without dependencies: the locks are complete, except for unused ones of comfy-cli.
        uv_install(runner, step, "--require-hashes", "--no-deps", "--compile-bytecode", *from_locks)
    if requirements and unmet_requirements(requirements):
        with console.step(f"Installing further requirements of {requirements}") as step:
            constraints = paths.CACHE / "held.txt"
            constraints.write_text("".join(f"{line}\n" for line in held(worker)))
            uv_install(runner, step, "--compile-bytecode", "-r", requirements, "-c", constraints)
    INSTALLED.write_text("".join(f"{line}\n" for line in installed()))
    dev_entry = {lock.stem: file_hash(lock) for lock in locks[1:]}
    entries = {"cuda": cuda, "worker": file_hash(worker), "python": _venv_version()}
    write_marker(MARKER, {**entries, **dev_entry, **want})


def unmet_requirements(requirements: Path) -> list[Unmet]:
    """List the requirements of a file that the environment does not meet.

    Args:
        requirements: a requirements.txt.

    Returns:
        An empty list if there is no environment, since then everything is missing.
    """
    return unmet_by_file([requirements]).get(requirements, [])


def unmet_by_file(files: Sequence[Path]) -> dict[Path, list[Unmet]]:
    """List the requirements of several files that the environment does not meet.

    Args:
        files: each a requirements.txt.

    Returns:
        The unmet requirements by file, only for files that have some. Empty if there is no
        environment, since then everything is missing.
    """
    command: list[str | Path] = [paths.VENV_PYTHON, "-B", "-m", "comfy_common.requirements"]
    command += files
    try:
        found = subprocess.run(command, cwd=paths.REPO, capture_output=True, text=True)
    except OSError:
        return {}
    unmet: dict[Path, list[Unmet]] = {}
    for line in found.stdout.splitlines():
        index, requirement, version = line.split("\t")
        unmet.setdefault(files[int(index)], []).append(Unmet(requirement, version))
    return unmet


def uv_install(runner: Runner, step: Step, *arguments: str | Path) -> None:
    """Run `uv pip install` for the virtual environment, with pip's settings.

    Args:
        runner: runs uv.
        step: shows the progress.
        arguments: the further arguments.

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


def uv_uninstall(runner: Runner, step: Step, *names: str) -> None:
    """Remove packages from the virtual environment.

    Args:
        runner: runs uv.
        step: shows the progress.
        names: of the packages.

    Raises:
        SetupError: it failed.
    """
    command: list[str | Path] = [paths.VENV / "bin" / "uv", "pip", "uninstall", "--color", "never"]
    runner.run(step, [*command, "--python", paths.VENV_PYTHON, *names])


def installed_before_packs() -> list[str]:
    """The packages of the environment without those of node packs, as "name==version"."""
    return INSTALLED.read_text(encoding="utf-8").split()


def installed() -> list[str]:
    """The packages in the environment, as sorted lines "name==version"."""
    lines = []
    for folder in paths.VENV.glob(f"{SITE_PACKAGES}/*.dist-info"):
        name_and_version = folder.name.removesuffix(".dist-info").rsplit("-", 1)
        lines.append("==".join(name_and_version))
    return sorted(lines)


def held(lock: Path) -> list[str]:
    """The packages that no ComfyUI may replace, as lines "name==version".

    Args:
        lock: one of `WORKER_LOCKS`.
    """
    locked = lock.read_text()
    lines: list[str] = []
    for name in HELD:
        lines += re.findall(rf"^{name}==[^\s;]+", locked, re.MULTILINE)
    return lines


def _venv_version() -> str:
    """Ask the environment's Python for its version, since its base may have been replaced."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    command: list[str | Path] = [paths.VENV_PYTHON, "-I", "-S", "-c", program]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
