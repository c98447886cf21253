"""The command `completion`: prints a script with which a shell completes the command line.

The script is made from the parser of the arguments, so it has every command and option. It
completes `comfy-worker` and `python3 -m comfy_setup`. Standard library only.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["SHELLS", "add_completion_options", "completion_script"]

# An option or argument whose metavar contains one of these words takes a file or a folder.
FILES = re.compile(r"FILE|FOLDER|PATH|JSON")


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        names: such as `--json`.
        meaning: one line of help.
        takes_value: whether a value follows.
        choices: the values; empty if any text is allowed.
        is_file: whether the value names a file or a folder.
    """

    names: tuple[str, ...]
    meaning: str
    takes_value: bool
    choices: tuple[str, ...]
    is_file: bool


@dataclass(frozen=True)
class Command:
    """One command, or the program itself.

    Attributes:
        options: its options.
        words: the commands, actions or values that may follow, each with its meaning.
        takes_files: whether files may follow.
    """

    options: list[Option] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    takes_files: bool = False


def add_completion_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `completion`.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "shell", choices=list(SHELLS), metavar="SHELL", help=f"one of {', '.join(SHELLS)}"
    )


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Write the script for a shell.

    Args:
        parser: of all commands.
        shell: one of SHELLS.
    """
    commands = {"": _command(parser)}
    for name, subparser in _subparsers(parser).items():
        commands[name] = _command(subparser)
    return SHELLS[shell](commands)


def _subparsers(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _command(parser: argparse.ArgumentParser) -> Command:
    command = Command([], _meanings(parser))
    takes_files = False
    for action in parser._actions:
        if action.option_strings:
            command.options.append(_option(action))
        elif not isinstance(action, argparse._SubParsersAction):
            command.words.update(dict.fromkeys(map(str, action.choices or ()), ""))
            takes_files = takes_files or _is_file(action)
    return Command(command.options, command.words, takes_files)


def _meanings(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The commands of a parser with what each one does."""
    meanings = {}
    for name, subparser in _subparsers(parser).items():
        meanings[name] = _first_line(subparser.description or "")
    return meanings


def _option(action: argparse.Action) -> Option:
    return Option(
        tuple(action.option_strings),
        _first_line(action.help or ""),
        takes_value=action.nargs != 0,
        choices=tuple(map(str, action.choices or ())),
        is_file=_is_file(action),
    )


def _is_file(action: argparse.Action) -> bool:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    return bool(FILES.search(metavar))


def _first_line(text: str) -> str:
    """The start of a help text, without characters that a shell or argparse would replace."""
    start = re.split(r"[(;:]", text.strip(), maxsplit=1)[0]
    return re.sub(r"[^\w ,./%-]", "", start).strip().rstrip(".")


def _value_names(command: Command, is_wanted: Callable[[Option], bool]) -> list[str]:
    names: list[str] = []
    for option in command.options:
        if option.takes_value and is_wanted(option):
            names += option.names
    return names


def _patterns(words: Sequence[str]) -> str:
    """The words as one pattern of `case`; it matches nothing if there are none."""
    return "|".join(words) or "''"


BASH = """\
# Completes comfy-worker and python3 -m comfy_setup in bash. Load it with
#     source <(python3 -m comfy_setup completion bash)
_comfy_worker_words() {
    # Sets the words, the options with a value, those with a file, and whether files may follow.
    words= value_options= file_options= files=
    case $1 in
@COMMANDS@
    esac
}
_comfy_worker_choices() {
    case $1 in
@CHOICES@
    esac
}
_comfy_worker() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local first=${1:-1} command= index words value_options file_options files
    for ((index = first; index < COMP_CWORD; index++)); do
        if [[ ${COMP_WORDS[index]} != -* ]]; then command=${COMP_WORDS[index]}; break; fi
    done
    _comfy_worker_words "$command"
    COMPREPLY=()
    if [[ $before == -* && " $value_options " == *" $before "* ]]; then
        words=$(_comfy_worker_choices "$command $before") files=
        if [[ " $file_options " == *" $before "* ]]; then files=yes; fi
    fi
    while IFS= read -r index; do COMPREPLY+=("$index"); done < <(compgen -W "$words" -- "$word")
    if [[ $files && $word != -* ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r index; do COMPREPLY+=("$index"); done < <(compgen -f -- "$word")
    fi
}
_comfy_worker_python() {
    if [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == comfy_setup && $COMP_CWORD -gt 2 ]]; then
        _comfy_worker 3
    elif declare -F "$_comfy_worker_before" >/dev/null; then
        "$_comfy_worker_before" "$@"
    else
        COMPREPLY=()
        compopt -o default 2>/dev/null
    fi
}
_comfy_worker_program() { _comfy_worker 1; }
# Other uses of python3 are completed as before.
_comfy_worker_before=$(complete -p python3 2>/dev/null | sed -n 's/.* -F \\([^ ]*\\) .*/\\1/p')
if [[ $_comfy_worker_before == _comfy_worker_python ]]; then _comfy_worker_before=; fi
complete -F _comfy_worker_python python3
complete -F _comfy_worker_program comfy-worker
"""


def _bash(commands: Mapping[str, Command]) -> str:
    entries, choices = [], []
    for name, command in commands.items():
        words = [*command.words]
        for option in command.options:
            words += option.names
        value_options = _value_names(command, lambda _option: True)
        file_options = _value_names(command, lambda option: option.is_file)
        entries.append(
            f"    {shlex.quote(name)}) words={shlex.quote(' '.join(words))}"
            f" value_options={shlex.quote(' '.join(value_options))}"
            f" file_options={shlex.quote(' '.join(file_options))}"
            f" files={'yes' if command.takes_files else ''} ;;"
        )
        for option in command.options:
            if option.choices:
                cases = [shlex.quote(f"{name} {alias}") for alias in option.names]
                values = shlex.quote(" ".join(option.choices))
                choices.append(f"    {_patterns(cases)}) echo {values} ;;")
    return BASH.replace("@COMMANDS@", "\n".join(entries)).replace("@CHOICES@", "\n".join(choices))


ZSH = """\
#compdef comfy-worker
# Completes comfy-worker and python3 -m comfy_setup in zsh. Load it after compinit with
#     source <(python3 -m comfy_setup completion zsh)
_comfy_worker() {
    local -a commands
    commands=(
@COMMANDS@
    )
    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        _describe command commands
        return
    fi
    local command=$words[2]
    case $command in
@CASES@
    *) _arguments @PROGRAM@ ;;
    esac
}
_comfy_worker_python() {
    if [[ $words[2] == -m && $words[3] == comfy_setup ]] && (( CURRENT > 3 )); then
        words=(comfy-worker "${(@)words[4,-1]}")
        (( CURRENT -= 2 ))
        _comfy_worker
    elif (( $+functions[_python] )) || autoload +X -Uz _python 2>/dev/null; then
        _python "$@"
    else
        _files
    fi
}
compdef _comfy_worker comfy-worker
compdef _comfy_worker_python python3
"""


def _zsh(commands: Mapping[str, Command]) -> str:
    program = commands[""]
    described = [
        f"        {shlex.quote(f'{name}:{meaning}')}" for name, meaning in program.words.items()
    ]
    cases = []
    for name, command in commands.items():
        if name:
            arguments = " ".join(_zsh_arguments(command))
            cases.append(f"    {name}) (( CURRENT-- )); shift words; _arguments {arguments} ;;")
    script = ZSH.replace("@COMMANDS@", "\n".join(described))
    script = script.replace("@CASES@", "\n".join(cases))
    return script.replace("@PROGRAM@", " ".join(_zsh_arguments(Command(program.options))))


def _zsh_arguments(command: Command) -> Iterator[str]:
    for option in command.options:
        value = ""
        if option.takes_value:
            value = ":value:"
            value += f"({' '.join(option.choices)})" if option.choices else ""
            value += "_files" if option.is_file else ""
        for name in option.names:
            yield shlex.quote(f"*{name}[{option.meaning}]{value}")
    if command.words:
        yield shlex.quote(f"1:value:({' '.join(command.words)})")
    if command.takes_files:
        yield shlex.quote("*:file:_files")


FISH = """\
# Completes comfy-worker and python3 -m comfy_setup in fish. Load it with
#     python3 -m comfy_setup completion fish | source
function __comfy_worker_command --description 'Print the command on the line, if it is ours'
    set -l words (commandline -opc)
    if test "$words[1]" = python3
        if test "$words[2]" != -m; or test "$words[3]" != comfy_setup
            return 1
        end
        set words $words[3..-1]
    end
    for word in $words[2..-1]
        if not string match -q -- '-*' $word
            echo $word
            return 0
        end
    end
    echo program
end
"""


def _fish(commands: Mapping[str, Command]) -> str:
    lines = [FISH]
    for name, command in commands.items():
        for program in ("comfy-worker", "python3"):
            condition = f"test (__comfy_worker_command; or echo none) = {name or 'program'}"
            start = f"complete -c {program} -n {shlex.quote(condition)}"
            lines += _fish_lines(start, command)
    return "\n".join([*lines, ""])


def _fish_lines(start: str, command: Command) -> Iterator[str]:
    if not command.takes_files:
        yield f"{start} -f"
    for word, meaning in command.words.items():
        yield f"{start} -a {shlex.quote(word)} -d {shlex.quote(meaning)}"
    for option in command.options:
        value = ""
        if option.takes_value:
            value = " -r -F" if option.is_file else " -x"
        if option.choices:
            value += f" -a {shlex.quote(' '.join(option.choices))}"
        names = [
            f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
        ]
        yield f"{start} {' '.join(names)}{value} -d {shlex.quote(option.meaning)}"


SHELLS: dict[str, Callable[[Mapping[str, Command]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""The shells, each with the function that writes its script."""
