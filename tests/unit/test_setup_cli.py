"""The command line: the oldest Pythons, wrong arguments, failures in one line."""

from __future__ import annotations

import ast
import errno
import fcntl
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from comfy_common import exit_codes, paths
from comfy_common.closed_pipe import CLOSED_PIPE
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.job_options import input_from_json
from comfy_common.version import VERSION
from comfy_setup import __main__, cli, fetch_models, models
from comfy_setup.arguments import EXAMPLES, MEANINGS


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_the_door_parses_on_an_old_python(name: str) -> None:
    text = (paths.REPO / "comfy_setup" / name).read_text()
    tree = ast.parse(text, feature_version=(3, 4))
    assert "__future__" not in {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
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
    assert line.startswith(
        f"comfy_setup needs Python 3.10 or newer and this is Python {version[0]}.{version[1]}:"
    )


def test_python_3_10_will_do() -> None:
    assert __main__.complaint((3, 10)) == ""
    assert __main__.complaint(sys.version_info[:2]) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "--input is not JSON"),
        ("[1]", "must be a JSON object"),
        ("@nowhere.json", "nowhere.json cannot be read"),
        ('{"cfg": NaN}', "--input is not JSON: "),
        ('{"cfg": -1e400}', "--input is not JSON: "),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ],
)
def test_a_malformed_input_is_reported_before_setup(
    text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--input", text]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert problem in line


def test_a_binary_input_file_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "input.json").write_bytes(b'{"prompt": "\xff"}')
    assert cli.main(["run", "--input", f"@{tmp_path}/input.json"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "input.json is not UTF-8 text" in line


def test_an_unwritable_output_is_reported_before_setup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for output, problem in [
        (tmp_path, "is a folder: name a file in it"),
        (tmp_path / "file" / "a.png", "cannot be"),
    ]:
        assert cli.main(["run", "--output", str(output)]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"Error: --output: {output} ")
        assert problem in line


def test_missing_output_folders_are_created_and_reported(tmp_path: Path) -> None:
    output = io.StringIO()
    cli.check_output(tmp_path / "new" / "deep" / "a.png", Console(output))
    assert output.getvalue() == f"Creating the folder {tmp_path}/new/deep\n"
    cli.check_output(tmp_path / "new" / "deep" / "b.png", Console(output))
    assert output.getvalue().count("Creating") == 1


def test_an_output_that_names_a_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--output", f"{tmp_path}/new/"]) == 1
    assert "is a folder: name a file in it" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["serve", "run"])
@pytest.mark.parametrize("setting", [("JOB_TIMEOUT_S", "soon"), ("MODELS_CACHE_GB", "-1")])
def test_a_bad_setting_ends_with_1(
    command: str,
    setting: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(models, "ensure_checkpoint", lambda *_: False)
    monkeypatch.setenv(cli.READY, str(os.getpid()))
    monkeypatch.setenv(*setting)
    assert cli.main([command]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert setting[0] in line


READER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
process.stdout.close()
said = process.stderr.read().decode()
sys.stdout.write(f"{process.wait()} {said}")
"""


@pytest.mark.parametrize(
    "command",
    [
        ["comfy_setup", "--help"],
        ["comfy_setup", "models", "--list"],
        ["comfy_setup", "models", "--check"],
        ["comfy_setup", "doctor"],
        ["comfy_setup", "--version"],
        ["comfy_setup", "templates"],
        ["comfy_worker", "templates"],
        ["comfy_worker", "schema", "txt2img", "--object-info", "tests/core_nodes.json"],
        [
            "comfy_worker",
            "inspect",
            "workflows/txt2img.json",
            "--object-info",
            "tests/core_nodes.json",
        ],
    ],
    ids=" ".join,
)
def test_a_closed_pipe_is_no_traceback(command: list[str]) -> None:
    call = [sys.executable, "-c", READER, sys.executable, "-m", *command]
    result = subprocess.run(
        call, cwd=paths.REPO, capture_output=True, text=True, check=True, timeout=120
    )
    # argparse itself swallows the error where the help is written at once, with PYTHONUNBUFFERED.
    assert result.stdout == "141 " or (result.stdout == "0 " and "--help" in command)


@pytest.mark.parametrize("command", ["", *MEANINGS])
def test_each_command_has_help_with_examples(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("python3 -m comfy_setup", "comfy-worker"):
        with pytest.raises(SystemExit) as caught:
            cli.main([command, "--help"] if command else ["--help"])
        assert caught.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"usage: {program} {command or 'COMMAND'} [options]")
        examples = [line for line in lines if line.startswith(f"  {program} ")]
        assert len(examples) == len(EXAMPLES[command]) > 0
        assert max(map(len, lines)) <= 100
        monkeypatch.setenv("COMFY_SETUP_PROGRAM", "comfy-worker")


def test_the_version_needs_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"comfy-worker {VERSION}, no ComfyUI yet, Python 3.")
    assert f'\nversion = "{VERSION}"\n' in (paths.REPO / "pyproject.toml").read_text()


def test_workflow_commands_continue_in_the_venv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def become(command: list[object], environ: dict[str, str]) -> NoReturn:
        started.append([*map(str, command[1:]), environ["COMFYUI_DIR"]])
        raise SystemExit(0)

    monkeypatch.setattr(cli, "_become", become)
    monkeypatch.setattr(cli, "install", lambda *_: started.append("installed"))
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_DIR", "")
    arguments = ["check", "a.json", "--comfyui-dir", str(tmp_path), "--json"]
    for python, expected in ((Path(sys.executable), []), (tmp_path / "none", ["installed"])):
        started.clear()
        monkeypatch.setattr(paths, "VENV_PYTHON", python)
        with pytest.raises(SystemExit):
            cli.main(arguments)
        command = ["-m", "comfy_worker", "check", "a.json", "--json", str(tmp_path)]
        assert started == [*expected, command]


def test_docs_list_every_command_and_code() -> None:
    text = (paths.REPO / "docs" / "commands.md").read_text()
    assert [name for name in MEANINGS if f"| `{name}" not in text] == []
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()} | {CLOSED_PIPE}
    assert sorted(codes) == [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]


def test_closed_errors_are_no_traceback() -> None:
    shell = f"{sys.executable} -m comfy_setup run --input '{{' 2>&1 >/dev/null | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", shell], cwd=paths.REPO, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    assert result.stdout in ("141\n", "1\n")  # `true` may end before or after the one line


def test_the_output_check_changes_no_files(tmp_path: Path) -> None:
    cli.check_output(tmp_path / "new" / "a.png")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old.png").write_bytes(b"old")
    cli.check_output(tmp_path / "old.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run", "--real", "--template", "upscale"], "--real makes its picture with txt2img"),
        (["models", "--only", "txt2img", "nope"], "models.txt has no section nope"),
    ],
)
def test_a_typing_error_is_reported_before_setup(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert problem in line


def test_models_are_fetched_once_the_machine_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setenv(cli.READY, str(os.getpid()))
    fetched: list[list[str]] = []

    def fetch(_console: object, _environ: object, only: list[str]) -> int:
        fetched.append(only)
        return 1

    monkeypatch.setattr(fetch_models, "fetch_models", fetch)
    assert cli.main(["models", "--only", "txt2img", "--only", "upscale"]) == 1
    assert fetched == [["txt2img", "upscale"]]


def test_a_checkpoint_is_made_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setenv(cli.READY, str(os.getpid()))

    def take_the_lock(*_: object) -> None:
        with (tmp_path / "install.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise SetupError("the lock was free")

    monkeypatch.setattr(models, "ensure_checkpoint", take_the_lock)
    assert cli.main(["run"]) == 1
    assert "temporarily unavailable" in capsys.readouterr().err


def test_an_input_is_text_a_file_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"steps": 3}')
    read = input_from_json
    assert read('{"steps": 3}') == read(f"@{tmp_path}/input.json") == {"steps": 3}
    assert read("") == {}


OUT_OF_RANGE = [
    ["serve", option, value]
    for option, value in (
        ("--port", "0"),
        ("--port", "99999"),
        ("--workers", "0"),
        ("--workers", "-3"),
    )
]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["doctor", "--fast"],
        ["serve", "--port", "x"],
        ["install", "--cuda", "11"],
        *OUT_OF_RANGE,
    ],
)
def test_wrong_arguments_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_the_requested_cuda_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: list[object] = []
    monkeypatch.setattr(
        cli, "install", lambda _console, _environ, _choice, cuda, dev: versions.append(cuda)
    )
    assert cli.main(["install", "--cuda", "13"]) == cli.main(["install"]) == 0
    assert versions == ["13", ""]


def test_a_folder_and_a_source_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["install", "--comfyui-dir", "/x", "--comfyui-version", "0.4.0"]) == 1
    assert "leave --comfyui-source and --comfyui-version out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (SetupError("no network"), 1, "Error: no network"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"),
            1,
            "Error: the disk is full: free some space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "Error: [Errno 13] Permission denied: '/x'",
        ),
        (KeyboardInterrupt(), 130, "Stopped. The next call continues"),
    ],
)
def test_a_failure_is_one_line(
    raised: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "install", fail)
    assert cli.main(["install"]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
