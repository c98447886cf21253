"""Shells complete the command line: bash runs its script, those of the others name everything."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from comfy_setup import cli
from comfy_setup.arguments import MEANINGS, completion
from comfy_setup.completion import SHELLS

PROGRAMS = (("comfy-worker",), ("python3", "-m", "comfy_setup"))
# Another completion of python3, which must go on working.
OTHER = "_other() { COMPREPLY=(other); }; complete -F _other python3"


def completed(*words: str, folder: Path = Path(), before: str = "") -> list[str]:
    """What bash offers for the last word."""
    script = f"""
        {before}
        source /dev/stdin <<'SCRIPT'
{completion("bash", {})}
SCRIPT
        COMP_WORDS=({" ".join(map(shlex.quote, words))})
        COMP_CWORD={len(words) - 1}
        name=$(complete -p {words[0]} | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        $name {words[0]} {shlex.quote(words[-1])} {shlex.quote(words[-2])}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""
    return result.stdout.split()


def options_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that the help of a command lists."""
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    help_text = capsys.readouterr().out.partition("examples:")[0]
    return set(re.findall(r"^ +(?:-h, )?(--[\w-]+)", help_text, re.MULTILINE))


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_completes_commands(program: tuple[str, ...]) -> None:
    assert set(MEANINGS) <= set(completed(*program, ""))
    assert completed(*program, "sub") == ["submit"]
    assert completed(*program, "nodes", "re") == ["remove"]
    assert completed(*program, "completion", "") == ["bash", "zsh", "fish", "-h", "--help"]


@pytest.mark.parametrize("command", MEANINGS)
def test_bash_completes_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = options_of(command, capsys)
    assert "--help" in options
    assert set(completed("comfy-worker", command, "--")) == options


def test_bash_completes_values(tmp_path: Path) -> None:
    (tmp_path / "photo 1.png").touch()
    (tmp_path / "picture.json").touch()
    program = PROGRAMS[1]
    assert completed(*program, "install", "--cuda", "") == ["13", "12"]
    assert completed(*program, "check", "pic", folder=tmp_path) == ["picture.json"]
    assert completed(*program, "run", "--image", "ph", folder=tmp_path) == ["photo", "1.png"]
    assert completed(*program, "run", "--prompt", "", folder=tmp_path) == []


def test_bash_leaves_other_uses_of_python() -> None:
    assert completed("python3", "-m", "js", before=OTHER) == ["other"]
    assert completed("python3", "-m", "js") == []
    assert completed("python3", "-m", "comfy_setup", "sub", before=OTHER) == ["submit"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_names_every_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in MEANINGS:
        assert command in script
        for option in options_of(command, capsys):
            wanted = f"-l {option[2:]}" if shell == "fish" else option
            assert wanted in script
