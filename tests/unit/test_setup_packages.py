"""When the virtual environment counts as finished, and what a Python without venv is told."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_setup import install, packages
from comfy_setup.comfyui import Choice
from comfy_setup.marker import file_hash, read_marker, write_marker


@pytest.fixture
def stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stamp of an environment that is the one of these tests, with the repository's real lock files."""
    monkeypatch.setattr(packages, "MARKER", tmp_path / "stamp.json")
    monkeypatch.setattr(paths, "VENV_PYTHON", Path(sys.executable))
    return tmp_path / "stamp.json"


def entries(**changes: str) -> dict[str, str]:
    worker = file_hash(packages.LOCKS / "worker.lock")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return {"worker": worker, "python": python, "comfyui": "", **changes}


def test_a_finished_environment_is_ready(stamp: Path) -> None:
    write_marker(stamp, entries())
    assert packages.ready()


def test_a_missing_or_partial_marker_is_not_ready(stamp: Path) -> None:
    assert not packages.ready()
    stamp.write_text('{"worker": ')
    assert not packages.ready()
    stamp.write_text("[]")
    assert not packages.ready()


@pytest.mark.parametrize("changes", [{"worker": "0"}, {"python": "3.1"}, {"dev": "0"}])
def test_other_lock_files_or_another_python_are_not(stamp: Path, changes: dict[str, str]) -> None:
    write_marker(stamp, entries(**changes))
    assert not packages.ready()


def test_test_packages_count_only_when_requested(stamp: Path) -> None:
    write_marker(stamp, entries())
    assert not packages.ready(dev=True)
    write_marker(stamp, entries(dev=file_hash(packages.LOCKS / "dev.lock")))
    assert packages.ready(dev=True)
    assert packages.ready()


def test_another_cudas_torch_passes_only_without_a_request(stamp: Path) -> None:
    assert packages.chosen_cuda() == "13"
    write_marker(stamp, entries(cuda="12", worker=file_hash(packages.WORKER_LOCKS["12"])))
    assert (packages.ready(), packages.ready("12"), packages.ready("13")) == (True, True, False)
    assert packages.chosen_cuda() == "12"
    write_marker(stamp, entries(cuda="12"))  # made from the lock of the other
    assert not packages.ready()


def locked(cuda: str) -> dict[str, str]:
    """Versions by package, but for those that a Python's age decides."""
    lines = re.findall(
        r"^([\w.-]+)==([\w.+-]+)", packages.WORKER_LOCKS[cuda].read_text(), re.MULTILINE
    )
    several = {name for name, _ in lines if [other for other, _ in lines].count(name) > 1}
    return {name: version for name, version in lines if name not in several}


def test_the_locks_differ_only_in_torchs_packages() -> None:
    twelve, thirteen = locked("12"), locked("13")
    assert (twelve["torch"], thirteen["torch"]) == ("2.10.0", "2.11.0")
    other = {name for name in twelve.keys() & thirteen.keys() if twelve[name] != thirteen[name]}
    assert other == {
        "torch",
        "torchvision",
        "torchaudio",
        "setuptools",
    }  # torch 2.11 says which setuptools
    assert {name.partition("-")[0] for name in twelve.keys() ^ thirteen.keys()} == {
        "nvidia",
        "cuda",
    }


def test_an_environment_whose_python_is_gone_is_not(
    stamp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_marker(stamp, entries())
    monkeypatch.setattr(paths, "VENV_PYTHON", stamp.parent / "python")
    assert not packages.ready()


def test_a_stamp_is_written_whole(tmp_path: Path) -> None:
    write_marker(tmp_path / "a.json", {"k": "v"})
    assert read_marker(tmp_path / "a.json") == {"k": "v"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_names_the_package(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.check_python()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SetupError, match=r"apt install python3\.\d+-venv"):
        packages.check_python()


def test_a_small_disk_is_reported_before_downloads(tmp_path: Path) -> None:
    install.check_disk(9.1e9, {})
    with pytest.raises(
        SetupError, match=r"has 2\.0 GB free and a first install needs about 9\.0 GB"
    ):
        install.check_disk(2e9, {"UV_CACHE_DIR": str(tmp_path / "none")})


def test_what_uv_has_cached_need_not_fit_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "REPO", tmp_path)
    cache = tmp_path / "cache" / "uv"
    cache.mkdir(parents=True)
    with (cache / "sparse").open("wb") as sparse:
        sparse.truncate(8_000_000_000)
    install.check_disk(2e9, {"UV_CACHE_DIR": str(cache)})
    install.check_disk(2e9, {"XDG_CACHE_HOME": str(tmp_path / "cache")})


def test_the_lock_meets_the_default_comfyuis_requirements() -> None:
    names = {name for cuda in ("12", "13") for name in locked(cuda)}
    assert {"comfy-kitchen", "comfy-aimdo", "comfy-angle", "simpleeval", "pyopengl"} <= names
    assert [locked(cuda)["transformers"].partition(".")[0] for cuda in ("12", "13")] == ["4", "4"]


def test_a_linked_environment_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "other" / ".venv"
    shared.mkdir(parents=True)
    (tmp_path / ".venv").symlink_to(shared)
    monkeypatch.setattr(paths, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(packages, "MARKER", tmp_path / ".venv" / "comfy_setup.json")
    write_marker(packages.MARKER, entries(worker="of other lock files"))
    before = {path: path.read_bytes() for path in shared.iterdir()}
    for name in ("install_comfyui", "compile_bytecode", "described"):
        monkeypatch.setattr(install.comfyui, name, lambda *_: "")
    monkeypatch.setattr(install.node_packs, "install_packs", lambda *_: None)
    console = Console(io.StringIO())
    install.install(console, {}, Choice())
    assert {path: path.read_bytes() for path in shared.iterdir()} == before
    output = console.stream.getvalue()  # type: ignore[attr-defined]
    assert output.startswith(
        f".venv is a link to {shared}: it is used unchanged, although it does not match the lock files\n"
    )
