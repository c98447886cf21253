"""The command line, which is the only one that a person types.

It takes the arguments, installs what a command needs, and continues with the virtual environment's
Python. Failures end here, with one line on standard error and exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from comfy_common import paths
from comfy_common.closed_pipe import quiet_on_closed_pipe
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.exit_codes import FAILED, INTERRUPTED, OK
from comfy_common.job_options import job_input, with_format
from comfy_common.workflow_options import WORKFLOW_COMMANDS
from comfy_setup import doctor, fetch_models, models
from comfy_setup.arguments import completion, read_arguments, without_comfyui_dir
from comfy_setup.child import FULL_DISK
from comfy_setup.comfyui import Choice
from comfy_setup.install import install, install_lock
from comfy_setup.lock_workflow import lock_workflows
from comfy_setup.node_commands import nodes

# Tells the Python of the virtual environment, which replaces this process, that all is installed.
READY = "COMFY_SETUP_READY"


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code; comfy_common.exit_codes has all of them.
    """
    return quiet_on_closed_pipe(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    console = Console(sys.stderr)
    options, rest = read_arguments(arguments, os.environ)
    if getattr(options, "quiet", False):
        console = Console(io.StringIO())
    errors = Console(sys.stderr)
    try:
        return _dispatch(console, options, rest, list(arguments), os.environ)
    except SetupError as error:
        errors.say(f"Error: {error}")
        return FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        errors.say(f"Error: {FULL_DISK if is_full else error}")
        return FAILED
    except KeyboardInterrupt:
        is_cancelled = options.command == "submit"
        errors.say(
            "Stopped. The jobs were cancelled."
            if is_cancelled
            else "Stopped. The next call continues where this one ended."
        )
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


def _dispatch(
    console: Console,
    options: argparse.Namespace,
    rest: list[str],
    arguments: list[str],
    environ: MutableMapping[str, str],
) -> int:
    if options.command == "completion":
        Console(sys.stdout).say(completion(options.shell, environ).rstrip())
        return OK
    if options.command in ("doctor", "nodes", "submit"):
        return _without_environment(console, options, environ)
    if options.command in WORKFLOW_COMMANDS:
        return _workflow_command(console, options, arguments, environ)
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


def _without_environment(
    console: Console, options: argparse.Namespace, environ: Mapping[str, str]
) -> int:
    """Run a command that needs no package, so that it installs nothing."""
    if options.command == "doctor":
        return doctor.doctor(environ, as_json=options.json)
    if options.command == "nodes":
        return nodes(console, options, environ)
    from comfy_worker.client.command import submit

    return submit(options, environ)


def _workflow_command(
    console: Console,
    options: argparse.Namespace,
    arguments: list[str],
    environ: MutableMapping[str, str],
) -> int:
    """Continue as comfy_worker in the virtual environment, which is made if it is missing."""
    if options.comfyui_dir:
        environ["COMFYUI_DIR"] = str(options.comfyui_dir.absolute())
    is_installed = paths.VENV_PYTHON.exists() and (paths.comfyui_dir(environ) / "main.py").exists()
    if not is_installed:
        install(console, environ, Choice("", ""))
    if not getattr(options, "lock", False):
        command = without_comfyui_dir(arguments)
        _become([paths.VENV_PYTHON, "-m", "comfy_worker", *command], environ)
    return lock_workflows(console, options, environ)


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
        toy_only = not real_input and models.ensure_checkpoint(console, environ)
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
    from comfy_local.first_picture import Wanted, make_picture

    request = {**real_input, **job_input(options)}
    wanted = Wanted(
        Path(options.output) if options.output else None,
        toy_only=toy_only,
        as_json=options.json,
    )
    return make_picture(console, environ, request, wanted)


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
