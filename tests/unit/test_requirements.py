"""A requirements.txt against the packages that are installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.requirements import Unmet, install_command, summary, unmet_requirements

FILE = f"""
# a comment
-r other.txt
https://example.org/x.whl
packaging
packaging=={version("packaging")}  # with a comment
Packaging>=99; sys_platform == "nowhere"
packaging>=99
not-there[extra]~=1.0
torch
"""
UNMET = [Unmet("packaging>=99", version("packaging")), Unmet("not-there[extra]~=1.0", "")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(FILE)
    return path


def test_missing_and_other_versions_are_found(file: Path) -> None:
    assert unmet_requirements(file) == UNMET
    assert (
        summary(UNMET)
        == f"packaging>=99 ({version('packaging')} is installed), not-there[extra]~=1.0 (not installed)"
    )
    assert summary(UNMET, most=1).endswith(" and 1 more")


def test_a_missing_file_asks_for_nothing(tmp_path: Path) -> None:
    assert unmet_requirements(tmp_path / "none.txt") == []


def test_a_newer_editor_than_asked_for_will_do(file: Path) -> None:
    have = version("comfyui-frontend-package")
    file.write_text(
        f"comfyui-frontend-package==1.0.0\ncomfyui_embedded_docs==0.0.1\ncomfyui-frontend-package=={have}\n"
    )
    assert unmet_requirements(file) == []
    file.write_text("comfyui-frontend-package==99.0.0\n")
    assert [entry.installed for entry in unmet_requirements(file)] == [have]


def test_another_python_tells_it_line_by_line(file: Path) -> None:
    command = [sys.executable, "-m", "comfy_common.requirements", "/nowhere", str(file)]
    output = subprocess.run(
        command, cwd=paths.REPO, check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split("\t") for line in output.splitlines()]
    assert [Unmet(*line[1:]) for line in lines] == UNMET
    assert {line[0] for line in lines} == {"1"}


def test_the_command_names_a_folder_of_ones_own() -> None:
    assert install_command() == "python3 -m comfy_setup install"
    assert install_command(Path("/x y")) == "python3 -m comfy_setup install --comfyui-dir '/x y'"
