"""The command line: the oldest Pythons, wrong arguments, failures in one line."""

from __future__ import annotations

import ast
import errno
import os
import runpy
import sys
from pathlib import Path

import pytest

from comfy_setup import __main__, cli, paths
from comfy_setup.console import SetupError


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_the_door_parses_on_an_old_python(name: str) -> None:
    text = (paths.REPO / "comfy_setup" / name).read_text()
    tree = ast.parse(text, feature_version=(3, 4))
    assert "__future__" not in {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(isinstance(node, ast.JoinedStr | ast.AnnAssign) for node in ast.walk(tree))


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 9)])
def test_an_old_python_is_told_in_one_line(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(paths.REPO / "comfy_setup" / "__main__.py"), run_name="__main__")
    monkeypatch.undo()
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"comfy_setup needs Python 3.10 or newer and this is Python {version[0]}.{version[1]}:")


def test_python_3_10_will_do() -> None:
    assert __main__.complaint((3, 10)) == ""
    assert __main__.complaint(sys.version_info[:2]) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "--input is no JSON"),
        ("[1]", "must be a JSON object"),
        ("@nowhere.json", "nowhere.json cannot be read"),
    ],
)
def test_an_input_that_is_none_is_told_before_anything_is_set_up(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--input", text]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert said in line


def test_an_input_is_text_a_file_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"steps": 3}')
    assert cli.job_input('{"steps": 3}') == cli.job_input(f"@{tmp_path}/input.json") == {"steps": 3}
    assert cli.job_input("") == {}


@pytest.mark.parametrize("arguments", [[], ["fly"], ["doctor", "--fast"], ["serve", "--port", "x"]])
def test_wrong_arguments_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_a_folder_and_a_source_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["install", "--comfyui-dir", "/x", "--comfyui-version", "0.4.0"]) == 1
    assert "leave --comfyui-source and -version away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (SetupError("no network"), 1, "Error: no network"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"), 1, "Error: the disk is full: make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "Error: [Errno 13] Permission denied: '/x'"),
        (KeyboardInterrupt(), 130, "Stopped. The next call goes on"),
    ],
)
def test_a_failure_is_one_line(
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "install", fail)
    assert cli.main(["install"]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
