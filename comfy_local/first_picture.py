"""Runs one job through the local endpoint and writes its files, as a first proof that all works.

Runs inside the virtual environment. This is a client of the endpoint: it knows only the job's input
and its result.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from comfy_common import paths
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.exit_codes import FAILED, OK
from comfy_common.job_options import with_format
from comfy_common.placeholder_names import TOY_CHECKPOINT
from comfy_common.text import size
from comfy_local.endpoint import LocalEndpoint
from comfy_worker.client.command import as_json, show_status
from comfy_worker.client.endpoint import Endpoint, JobStatus
from comfy_worker.client.errors import ClientError
from comfy_worker.client.files import result_files, save_files

# The toy model draws coloured shapes only, so it cannot show the prompt of a template.
TOY_PROMPT = "two yellow stars on a purple background"
POLL_S = 0.2
LOG_LINES = 12
TEMPLATE_NAME = re.compile(r"[\w.-]+")  # other text is a workflow, or a picture that contains one


@dataclass(frozen=True)
class Wanted:
    """What shall come of a job.

    Attributes:
        output: the file for the (first) picture, None for a file under `output/`.
        toy_only: no real checkpoint is installed. Then an input that names neither a prompt nor a
            workflow gets a prompt that the toy model can draw.
        as_json: print one JSON object in place of the files' names.
    """

    output: Path | None = None
    toy_only: bool = False
    as_json: bool = False


def make_picture(
    console: Console, environ: Mapping[str, str], job_input: Mapping[str, Any], wanted: Wanted
) -> int:
    """Run one job and write its files.

    Args:
        console: shows the steps; the names of the files go to standard output.
        environ: the worker's environment.
        job_input: the job's input, with its `workflow`.
        wanted: what shall come of it.

    Returns:
        The exit code: 0, or 1 if the job failed.

    Raises:
        SetupError: the worker does not start.
    """
    output, toy_only = wanted.output, wanted.toy_only
    chosen = with_format(job_input, output)
    complete = dict(chosen)
    if toy_only and not chosen.keys() & {"prompt", "workflow"}:
        complete["prompt"] = TOY_PROMPT
        console.say(f'The prompt is "{TOY_PROMPT}"; --prompt TEXT names another.')
    workflow = chosen.get("workflow", _default_template(chosen))
    is_template = isinstance(workflow, str) and TEMPLATE_NAME.fullmatch(workflow)
    name = workflow if is_template else "custom"
    log = paths.CACHE / "worker.log"
    log.unlink(missing_ok=True)
    with (
        LocalEndpoint(environ=environ, log_path=log) as endpoint,
        console.step(f"Running {name}") as step,
    ):
        status = _finished(endpoint, complete, step, log)
    if not status.is_completed:
        console.say(f"The job ended as {status.state}.")
        tell_failure(Console(sys.stderr), status)
        if wanted.as_json:
            Console(sys.stdout).say(as_json(status, []))
        return FAILED
    written = write_files(status.output, output)
    if wanted.as_json:
        Console(sys.stdout).say(as_json(status, written))
    else:
        for path in written:
            Console(sys.stdout).say(str(path))
    if output is not None and written[0].suffix != output.suffix:
        console.say(
            f"The job made another format than {output.name} says: the file is named "
            f"{written[0].name}."
        )
    tell_result(console, status.output, toy_only=toy_only)
    return OK


def tell_failure(console: Console, status: JobStatus) -> None:
    """Say why a job failed.

    Args:
        console: shows the lines.
        status: of the job that failed.
    """
    console.say(f"Error: {status.error or 'the job gave no reason'}")
    for detail in status.details:
        entries = detail if isinstance(detail, dict) else {"detail": detail}
        for key, value in entries.items():
            for line in value if isinstance(value, list) else [value]:
                console.say(f"  {key}: {line}")


def _default_template(job_input: Mapping[str, Any]) -> str:
    """The template that the worker chooses for an input without a workflow."""
    if not job_input.get("image"):
        return "txt2img"
    return "inpaint" if job_input.get("mask") else "img2img"


def tell_result(console: Console, result: Mapping[str, Any], *, toy_only: bool = False) -> None:
    """Say what a job made, with which seed, and how long its stages took.

    Args:
        console: shows the lines.
        result: the job's output.
        toy_only: the console has already explained that the toy model is used, so the warning
            about it is left out.
    """
    for image in result["images"]:
        picture_format = image["mime_type"].rpartition("/")[2].upper()
        console.say(
            f"{picture_format}, {image['width']}x{image['height']}, {size(image['bytes'])}, seed "
            f"{result['seed']}"
        )
    stages = [f"{stage} {ms} ms" for stage, ms in result["timings"]["stages"].items()]
    console.say(f"Time by stage: {', '.join(stages)}")
    for warning in result["warnings"]:
        if not (toy_only and TOY_CHECKPOINT in warning):
            console.say(f"Warning: {warning}")


def write_files(result: Mapping[str, Any], output: Path | None) -> list[Path]:
    """Write the files of a result.

    Args:
        result: the job's output, files as base64 or as links.
        output: the path of the first file. If the file has another format than this path says, its
            own ending is added. None for `output/<workflow>-<seed>` with the file's own ending.

    Returns:
        The absolute paths. The second file is named like the first, with -2 added, and so on.

    Raises:
        SetupError: the job made no file, or a file cannot be written.
    """
    files = result_files(result)
    if not files:
        raise SetupError(
            "the job made no file: its workflow needs a node that saves something, such as "
            "SaveImage"
        )
    if output is None:
        ending = PurePath(files[0]["filename"]).suffix
        output = paths.OUTPUT / f"{result['workflow']}-{result['seed']}{ending}"
    try:
        return [path.absolute() for path in save_files(result, output.parent, output)]
    except ClientError as error:
        raise SetupError(str(error)) from error


def _finished(
    endpoint: LocalEndpoint, job_input: Mapping[str, Any], step: Step, log: Path
) -> JobStatus:
    """Run a job to its end and return its status."""
    workers = endpoint.workers
    try:
        job = Endpoint.at(endpoint.url).run(job_input)
        status = job.status()
        while not status.has_ended:
            if any(worker.process.poll() is not None for worker in workers):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                last_lines = "\n".join(lines[-LOG_LINES:])
                raise SetupError(
                    f"the worker ended before the job did. Its last lines ({log}):\n{last_lines}"
                )
            time.sleep(POLL_S)
            show_status(step, status)
            status = job.status()
    except ClientError as error:
        raise SetupError(str(error)) from error
    return status
