"""`pip install .` makes a program that does the same as `python3 -m comfy_setup`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_common.paths import REPO
from comfy_common.version import VERSION
from comfy_setup.installed import PACKAGES, update_home

PARTS = (*PACKAGES, "requirements", "workflows")
FILES = ("pyproject.toml", "README.md", "LICENSE", "handler.py", "models.txt", "custom_nodes.txt")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed a copy of this tree."""
    source = tmp_path_factory.mktemp("source")  # pip writes into the tree
    for name in PARTS:
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(REPO / name, source / name)
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*command, str(source)], check=True, timeout=300)
    return target


def comfy_worker(site: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(site), "COMFY_WORKER_HOME": str(home)}
    command = [site / "bin" / "comfy-worker", *arguments]
    return subprocess.run(
        command, cwd=home.parent, env=environ, capture_output=True, text=True, timeout=60
    )


def test_the_program_runs_in_its_own_folder(site: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shown = comfy_worker(site, home, "--version")
    assert shown.stdout.startswith(f"comfy-worker {VERSION}, no ComfyUI yet"), shown.stderr
    ours = [path.relative_to(REPO) for name in PARTS for path in (REPO / name).rglob("*")]
    missing = [
        path
        for path in [*ours, Path("handler.py"), Path("models.txt"), Path("custom_nodes.txt")]
        if "__pycache__" not in path.parts and not (home / path).exists()
    ]
    assert missing == []
    listed = comfy_worker(site, home, "models", "--list", "--only", "txt2img")
    assert "[txt2img]" in listed.stdout, listed.stderr
    assert comfy_worker(site, home, "fly").returncode == 2
    assert "usage: comfy-worker submit" in comfy_worker(site, home, "submit", "--help").stdout


def test_an_update_keeps_the_users_files(site: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    update_home(site, home)
    (home / "workflows" / "mine.json").write_text("{}")
    (home / "comfy_setup" / "old.py").touch()
    update_home(site, home)
    assert (home / "comfy_setup" / "old.py").exists()  # nothing has changed
    (home / ".installed").write_text("another version")
    (home / "custom_nodes.txt").write_text("mine@1.0.0\n")
    (home / "models.txt").unlink()
    update_home(site, home)
    assert (home / "custom_nodes.txt").read_text() == "mine@1.0.0\n"
    assert (home / "models.txt").read_bytes() == (REPO / "models.txt").read_bytes()
    assert not (home / "comfy_setup" / "old.py").exists()
    assert (home / "workflows" / "mine.json").read_text() == "{}"


def test_an_unwritable_folder_is_named(site: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ = {**os.environ, "PYTHONPATH": str(site)}
    environ["COMFY_WORKER_HOME"] = str(tmp_path / "file" / "home")
    failed = subprocess.run(
        [site / "bin" / "comfy-worker", "--version"], env=environ, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "cannot be written: Not a directory; COMFY_WORKER_HOME names" in failed.stderr
