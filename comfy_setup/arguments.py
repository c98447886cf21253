"""The arguments of all commands, and the help that explains them.

Standard library only, since nothing may be installed yet.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.exit_codes import OK
from comfy_common.job_options import add_job_options, add_submit_options
from comfy_common.version import VERSION
from comfy_common.workflow_options import WORKFLOW_COMMANDS, add_workflow_options
from comfy_setup import doctor, packages
from comfy_setup.comfyui import described
from comfy_setup.completion import add_completion_options, completion_script
from comfy_setup.node_commands import NODES_MEANING, add_nodes_options

__all__ = [
    "COMMAND_GROUPS",
    "PROGRAM",
    "completion",
    "program",
    "read_arguments",
    "without_comfyui_dir",
]

# The name of the program, if it is not this module: `pip install .` makes another one.
PROGRAM = "COMFY_SETUP_PROGRAM"
MOST_WORKERS = 64
HELP_WIDTH = 12

# By group: each command and what it does.
COMMAND_GROUPS: dict[str, dict[str, str]] = {
    "Make pictures": {
        "run": "make a picture on this machine",
        "submit": "send jobs to a RunPod endpoint or the local one, and save their files",
        "serve": "run a local endpoint with RunPod's API",
    },
    "Workflows": WORKFLOW_COMMANDS,
    "This machine": {
        "install": "install the Python environment and ComfyUI",
        "models": "download the files of models.txt that are missing or damaged",
        "nodes": NODES_MEANING,
        "doctor": "check this machine and print what is missing",
        "test": "install everything and run the tests",
        "completion": "print a script with which a shell completes the commands and options",
    },
}
MEANINGS = {name: text for group in COMMAND_GROUPS.values() for name, text in group.items()}

# By command: what follows its options.
POSITIONALS = {
    "edit": " [NAME]",
    "schema": " [NAME]",
    "check": " FILE",
    "inspect": " FILE",
    "convert": " FILE",
    "nodes": " ACTION",
    "completion": " SHELL",
    "test": " [arguments of pytest]",
}
# By command: its examples. `$` stands for the program.
EXAMPLES = {
    "": (
        "$ run --prompt 'a lighthouse' --output a.jpg",
        "$ submit --endpoint ENDPOINT_ID --prompt 'a lighthouse'",
        "$ check workflows/poster.json",
    ),
    "run": (
        "$ run --prompt 'a lighthouse' --set steps=8 --output a.jpg",
        "$ run --template poster.json --image photo.png --lora style:0.8",
    ),
    "submit": (
        "$ submit --prompt 'a lighthouse'",
        "$ submit --endpoint ENDPOINT_ID --list jobs.csv --folder results --at-once 8",
    ),
    "serve": ("$ serve", "$ serve --host 0.0.0.0 --api-key SECRET --workers 2"),
    "edit": ("$ edit", "$ edit txt2img"),
    "templates": ("$ templates", "$ templates --json"),
    "schema": ("$ schema txt2img",),
    "check": (
        "$ check workflows/poster.json",
        "$ check workflows --json",
        "$ check mine.json --lock",
    ),
    "catalog": ("$ catalog > catalog.json",),
    "inspect": ("$ inspect picture.png",),
    "convert": ("$ convert editor.json --output api.json",),
    "install": ("$ install", "$ install --cuda 12"),
    "models": ("$ models --list", "$ models --only txt2img"),
    "nodes": (
        "$ nodes add comfyui-kjnodes",
        "$ nodes add https://github.com/owner/repository@v1.2",
        "$ nodes remove comfyui-kjnodes",
    ),
    "doctor": ("$ doctor", "$ doctor --json"),
    "test": ("$ test", "$ test tests/unit -k client"),
    "completion": ("$ completion bash > comfy-worker.bash", "$ completion fish | source"),
}


def program(environ: Mapping[str, str]) -> str:
    """Return what a person types to start this program."""
    return environ.get(PROGRAM) or "python3 -m comfy_setup"


def read_arguments(
    arguments: Sequence[str], environ: Mapping[str, str]
) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line.

    Args:
        arguments: without the program's name.
        environ: may hold the program's name, and defaults.

    Returns:
        The options, and what is left for pytest.

    Raises:
        SystemExit: the arguments are wrong, or only help or the version was wanted.
    """
    if list(arguments) == ["--version"]:
        Console(sys.stdout).say(_versions(environ))
        raise SystemExit(OK)
    parser = _parser(environ)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        parser.error(f"unknown argument: {rest[0]}")
    return options, rest


def completion(shell: str, environ: Mapping[str, str]) -> str:
    """Write the script with which a shell completes the arguments.

    Args:
        shell: bash, zsh or fish.
        environ: may hold the program's name.
    """
    return completion_script(_parser(environ), shell)


def _versions(environ: Mapping[str, str]) -> str:
    try:
        comfyui = f"ComfyUI {described(environ)}"
    except SetupError:
        comfyui = "no ComfyUI yet"
    return f"comfy-worker {VERSION}, {comfyui}, Python {sys.version.partition(' ')[0]}"


def without_comfyui_dir(arguments: Sequence[str]) -> list[str]:
    """Leave out `--comfyui-dir`, which comfy_worker takes from the environment."""
    kept: list[str] = []
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
        elif argument == "--comfyui-dir":
            is_value = True
        elif not argument.startswith("--comfyui-dir="):
            kept.append(argument)
    return kept


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    name = program(environ)
    parser = argparse.ArgumentParser(
        prog=name,
        usage=f"{name} COMMAND [options]",
        description=_overview(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the versions and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", prog=name)
    parser._action_groups = parser._action_groups[1:]  # the description lists the commands
    for command, meaning in MEANINGS.items():
        added = commands.add_parser(
            command,
            usage=f"{name} {command} [options]{POSITIONALS.get(command, '')}",
            description=f"{meaning[0].upper()}{meaning[1:]}.",
            epilog=_examples(name, command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command in WORKFLOW_COMMANDS:
            add_workflow_options(added, command)
            _add_comfyui_dir(added)
        else:
            OPTIONS[command](added)
        if command in ("run", "serve", "test", "install", "models"):
            _add_install(added)
    return parser


def _overview(name: str) -> str:
    lines = ["Runs ComfyUI workflows on this machine and at RunPod.", ""]
    for title, group in COMMAND_GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {command:{HELP_WIDTH}}{meaning}" for command, meaning in group.items()]
        lines.append("")
    lines += [_examples(name, ""), "", f"`{name} COMMAND --help` lists the options of a command."]
    return "\n".join(lines)


def _examples(name: str, command: str) -> str:
    lines = [f"  {example.replace('$', name, 1)}" for example in EXAMPLES[command]]
    return "\n".join(["examples:", *lines])


def _add_comfyui_dir(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--comfyui-dir", type=Path, metavar="PATH", help="use an existing ComfyUI unchanged"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add_job_options(parser)
    result = parser.add_argument_group("the result")
    result.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help="where to save the picture (default: a new file in output/); "
        "the ending .jpg, .webp or .png sets the format",
    )
    result.add_argument("--json", action="store_true", help="print one JSON object")
    result.add_argument("--quiet", action="store_true", help="print only the names of the files")
    result.add_argument(
        "--real", action="store_true", help="download and use a small real checkpoint (5 GB)"
    )


def _add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", help="also run the container build and the long soak test"
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=_number(1, 65535),
        default=doctor.PORT,
        help="the port (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the IPv4 address to listen on (default: %(default)s, this machine only); 0.0.0.0 is "
        "every address, which a container needs",
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("SERVE_API_KEY"),
        help="the key that clients must send as `Authorization: Bearer KEY` (default: "
        "SERVE_API_KEY)",
    )
    parser.add_argument(
        "--workers",
        type=_number(1, MOST_WORKERS),
        default=1,
        help="number of handler processes (default: %(default)s)",
    )


def _add_nothing(_parser: argparse.ArgumentParser) -> None:
    """Add no options."""


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {low} to {high}")
        return number

    return read


def _add_install(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that install something."""
    options = parser.add_argument_group("the installation")
    options.add_argument(
        "--comfyui-source",
        default="",
        metavar="SOURCE",
        help="git, wheel, or the URL or folder of another Git repository",
    )
    options.add_argument(
        "--comfyui-version",
        default="",
        metavar="VERSION",
        help="a tag, a branch, a commit or latest",
    )
    options.add_argument(
        "--cuda",
        choices=list(packages.WORKER_LOCKS),
        default="",
        help="the CUDA version that torch is built for (default: the installed one, else 13)",
    )
    _add_comfyui_dir(options)


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--only",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these templates, families, sections or files of models.txt",
    )
    command.add_argument(
        "--yes", action="store_true", help="download everything without asking, if --only is absent"
    )
    alternatives = command.add_mutually_exclusive_group()
    alternatives.add_argument(
        "--list", action="store_true", help="list present and missing files; download nothing"
    )
    alternatives.add_argument(
        "--check", action="store_true", help="check all present files; download nothing"
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with an entry per check"
    )


OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "run": _add_run,
    "submit": add_submit_options,
    "serve": _add_serve,
    "install": _add_nothing,
    "models": _add_models,
    "nodes": add_nodes_options,
    "doctor": _add_doctor,
    "test": _add_test,
    "completion": add_completion_options,
}
