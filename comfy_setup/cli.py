"""The command line: run | submit | serve | install | models | doctor | test.

It parses the arguments, installs what a command needs, and continues with the virtual environment's
Python. Failures end here, with one line on standard error and exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from comfy_common import paths
from comfy_common.closed_pipe import quiet_on_closed_pipe
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.job_options import add_job_options, add_submit_options, job_input, with_format
from comfy_setup import doctor, fetch_models, models, packages
from comfy_setup.child import FULL_DISK
from comfy_setup.comfyui import Choice
from comfy_setup.install import install, install_lock

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

# Tells the Python of the virtual environment, which replaces this process, that all is installed.
READY = "COMFY_SETUP_READY"
INTERRUPTED = 130
MOST_WORKERS = 64


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong arguments, 130 for Ctrl-C, 141 if
        the reader of the output has ended.
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
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        console.say(f"Error: {FULL_DISK if is_full else error}")
        return 1
    except KeyboardInterrupt:
        console.say("Stopped. The next call continues where this one ended.")
        return INTERRUPTED


def check_output(path: Path, console: Console | None = None) -> None:
    """Make sure that a file can be written before a job runs for it.

    Args:
        path: the file; its folder is created.
        console: says if the folder is created.

    Raises:
        SetupError: the file cannot be written.
    """
    if path.is_dir():
        raise SetupError(f"--output: {path} is a folder: name a file in it")
    try:
        if console and not path.parent.exists():
            console.say(f"Creating the folder {path.parent}")
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
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
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {low} to {high}")
        return number

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m comfy_setup",
        description="Installs the worker on this machine and runs it.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    installing = _install_options()
    _add_run(commands, installing)
    add_submit_options(
        commands.add_parser("submit", help="send jobs to an endpoint and save their files")
    )
    test = commands.add_parser(
        "test",
        parents=[installing],
        allow_abbrev=False,
        help="install everything and run the tests",
        epilog="Further arguments go to pytest.",
    )
    test.add_argument(
        "--all", action="store_true", help="also run the container build and the long soak test"
    )
    serve = commands.add_parser(
        "serve", parents=[installing], help="run a local endpoint with RunPod's API"
    )
    serve.add_argument(
        "--port",
        type=_number(1, 65535),
        default=doctor.PORT,
        help="the port (default: %(default)s)",
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="the IPv4 address to listen on (default: %(default)s, this machine only); 0.0.0.0 is "
        "every address, which a container needs",
    )
    serve.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("SERVE_API_KEY"),
        help="the key that clients must send as `Authorization: Bearer KEY` (default: "
        "SERVE_API_KEY)",
    )
    serve.add_argument(
        "--workers",
        type=_number(1, MOST_WORKERS),
        default=1,
        help="number of handler processes (default: %(default)s)",
    )
    commands.add_parser("install", parents=[installing], help="install everything")
    _add_models(commands, installing)
    commands.add_parser("doctor", help="check this machine and print what is missing")
    return parser


def _install_options() -> argparse.ArgumentParser:
    """The options of all commands that install something."""
    options = argparse.ArgumentParser(add_help=False)
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
    options.add_argument(
        "--comfyui-dir", type=Path, metavar="PATH", help="use an existing ComfyUI unchanged"
    )
    return options


def _add_run(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    installing: argparse.ArgumentParser,
) -> None:
    run = commands.add_parser(
        "run", parents=[installing], help="install everything and make a picture"
    )
    add_job_options(run)
    run.add_argument(
        "--real", action="store_true", help="download and use a small real checkpoint (5 GB)"
    )
    run.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help="where to save the picture (default: a new file in output/); "
        "the ending .jpg, .webp or .png sets the format",
    )


def _add_models(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    installing: argparse.ArgumentParser,
) -> None:
    command = commands.add_parser(
        "models",
        parents=[installing],
        help="download the files of models.txt that are missing or damaged",
    )
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


def _dispatch(
    console: Console,
    options: argparse.Namespace,
    rest: list[str],
    arguments: list[str],
    environ: MutableMapping[str, str],
) -> int:
    if options.command == "doctor":
        return doctor.doctor(environ)
    if options.command == "submit":
        from comfy_worker.client.command import submit

        return submit(options, environ)
    _check_options(console, options, environ)
    if options.comfyui_dir:
        environ["COMFYUI_DIR"] = str(options.comfyui_dir.absolute())
    if options.command == "models":
        return _models(console, options, environ)
    if environ.pop(READY, "") != str(os.getpid()):
        choice = Choice(options.comfyui_source, options.comfyui_version)
        install(console, environ, choice, options.cuda, dev=options.command == "test")
        if options.command == "install":
            return 0
        environ = {**environ, READY: str(os.getpid())}
        _become([paths.VENV_PYTHON, "-m", "comfy_setup", *arguments], environ)
    return _inside(console, options, rest, environ)


def _check_options(
    console: Console, options: argparse.Namespace, environ: Mapping[str, str]
) -> None:
    """Find mistakes in the options before the installation, which may take minutes."""
    if options.command == "models":
        models.listed(options.only, environ)
    if options.command == "run":
        request = job_input(options)
        if options.real and request.get("workflow", "txt2img") != "txt2img":
            raise SetupError("--real makes its picture with txt2img: leave --template out")
        if options.output.endswith(os.sep):
            raise SetupError(f"--output: {options.output} is a folder: name a file in it")
        if options.output:
            with_format(request, Path(options.output))
            check_output(Path(options.output), console)
    if options.comfyui_dir and (options.comfyui_source or options.comfyui_version):
        raise SetupError(
            "--comfyui-dir uses an existing ComfyUI: leave --comfyui-source and --comfyui-version "
            "out"
        )


def _models(console: Console, options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """List, check or download the chosen files of models.txt. Needs no installation."""
    if options.list:
        return models.list_models(environ, options.only)
    if options.check:
        return models.check_models(environ, options.only)
    is_chosen = options.only or options.yes
    if not is_chosen and not fetch_models.confirm_all(console, environ, sys.stdin):
        console.say("Nothing was downloaded.")
        return 1
    with install_lock(console):
        return fetch_models.fetch_models(console, environ, options.only)


def _inside(
    console: Console, options: argparse.Namespace, rest: list[str], environ: Mapping[str, str]
) -> int:
    """Run a command that needs the packages. Only the virtual environment's Python runs this."""
    real_input: dict[str, Any] = {}
    with install_lock(console):
        if options.command == "run" and options.real:
            real_input = _real_input(console, environ)
        placeholder_only = not real_input and models.ensure_checkpoint(console, environ)
    if options.command == "test":
        marks = [] if options.all else ["-m", "not container and not soak"]
        coverage = ["--cov", "--cov-report=term"]
        os.chdir(paths.REPO)
        _become([paths.VENV_PYTHON, "-m", "pytest", *coverage, *marks, *rest], environ)
    if problem := doctor.settings_problem(environ):
        raise SetupError(problem)
    if options.command == "serve":
        from comfy_local import endpoint

        address = endpoint.Address(options.host, options.port, options.api_key or None)
        return endpoint.serve(address, options.workers)
    from comfy_local.first_picture import make_picture

    request = {**real_input, **job_input(options)}
    output = Path(options.output) if options.output else None
    return make_picture(console, environ, request, output, placeholder_only=placeholder_only)


def _real_input(console: Console, environ: Mapping[str, str]) -> dict[str, Any]:
    """The job's input for the real checkpoint; empty if the checkpoint cannot be downloaded."""
    if fetch_models.fetch_real(console, environ):
        return dict(fetch_models.REAL_INPUT)
    return {}


def _become(command: Sequence[str | Path], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    words = [str(word) for word in command]
    os.execve(command[0], words, dict(environ))  # noqa: S606 (no shell is the point)
