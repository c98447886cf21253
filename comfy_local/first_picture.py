"""Runs one job through the local endpoint and writes its files, as a first proof that all works.

Runs inside the virtual environment. This is a client of the endpoint: it knows only the job's input
and its result.
"""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import requests

from comfy_common import paths
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.placeholder_names import PREFIX
from comfy_common.text import size
from comfy_local.endpoint import LocalEndpoint

# A placeholder's pictures are noise, so small and quick ones will do.
SMALL = {"width": 64, "height": 64, "steps": 2}
# The format of pictures by the ending of a file.
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
MEDIA_LISTS = ("images", "videos", "audio", "files")
POLL_S = 0.2
TIMEOUT_S = 30.0
LOG_LINES = 12
TEMPLATE_NAME = re.compile(r"[\w.-]+")  # other text is a workflow, or a picture that contains one


def make_picture(
    console: Console,
    environ: Mapping[str, str],
    job_input: Mapping[str, Any],
    output: Path | None,
    *,
    placeholder_only: bool,
) -> int:
    """Run one job and write its files.

    Args:
        console: shows the steps; the names of the files go to standard output.
        environ: the worker's environment.
        job_input: the job's input, with its `workflow`.
        output: the file for the (first) picture, None for a file under `output/`.
        placeholder_only: no real checkpoint is installed. Then the picture is 64x64 with 2 steps,
            unless the input names other values.

    Returns:
        The exit code: 0, or 1 if the job failed.

    Raises:
        SetupError: the worker does not start.
    """
    chosen = with_format(job_input, output)
    complete = {**(SMALL if placeholder_only else {}), **chosen}
    if complete != chosen:
        console.say(
            "The picture is therefore 64x64 with 2 steps; --input '{\"width\": 512, ...}' makes a "
            "larger one."
        )
    workflow = chosen["workflow"]
    is_template = isinstance(workflow, str) and TEMPLATE_NAME.fullmatch(workflow)
    name = workflow if is_template else "custom"
    log = paths.CACHE / "worker.log"
    log.unlink(missing_ok=True)
    with (
        LocalEndpoint(environ=environ, log_path=log) as endpoint,
        console.step(f"Starting ComfyUI and the worker, running {name}") as step,
    ):
        answer = _finished(endpoint, complete, step, log)
    if answer["status"] != "COMPLETED":
        console.say(f"The job ended as {answer['status']}.")
        tell_failure(console, answer)
        return 1
    written = write_files(answer["output"], output, name)
    for path in written:
        Console(sys.stdout).say(str(path))
    if output is not None and written[0].suffix != output.suffix:
        console.say(
            f"The job made another format than {output.name} says: the file is named "
            f"{written[0].name}."
        )
    tell_result(console, answer["output"], placeholder_only=placeholder_only)
    return 0


def with_format(job_input: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Choose the format of the pictures by the ending of the output file.

    Args:
        job_input: the job's input.
        output: the file for the first picture, None if the user named no file.

    Returns:
        The input, with `output.format` if the file's ending says one.

    Raises:
        SetupError: the input asks for another format than the file's ending.
    """
    options = job_input.get("output") or {}
    if output is None or not isinstance(options, dict):
        return dict(job_input)
    wanted = FORMATS.get(output.suffix.lower())
    if wanted is None:
        return dict(job_input)
    chosen = options.get("format") or wanted
    if chosen != wanted:
        raise SetupError(
            f"--output {output.name} and the input's output.format {chosen} differ: leave one out"
        )
    return {**job_input, "output": {**options, "format": wanted}}


def tell_failure(console: Console, answer: Mapping[str, Any]) -> None:
    """Say why a job failed.

    Args:
        console: shows the lines.
        answer: the job's status. `error` is "CODE: sentence", `output.details` has more if known.
    """
    console.say(f"Error: {answer.get('error', 'the job gave no reason')}")
    output = answer.get("output")
    for detail in output.get("details", []) if isinstance(output, dict) else []:
        entries = detail if isinstance(detail, dict) else {"detail": detail}
        for key, value in entries.items():
            for line in value if isinstance(value, list) else [value]:
                console.say(f"  {key}: {line}")


def tell_result(
    console: Console, result: Mapping[str, Any], *, placeholder_only: bool = False
) -> None:
    """Say what a job made, with which seed, and how long its stages took.

    Args:
        console: shows the lines.
        result: the job's output.
        placeholder_only: the console has already explained that a placeholder is used, so warnings
            about the placeholder are left out.
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
        if not (placeholder_only and PREFIX in warning):
            console.say(f"Warning: {warning}")


def write_files(result: Mapping[str, Any], output: Path | None, name: str) -> list[Path]:
    """Write the files of a result.

    Args:
        result: the job's output, files as base64 or as links.
        output: the path of the first file. If the file has another format than this path says, its
            own ending is added. None for `output/<name>-<seed>` with the file's own ending.
        name: the workflow's name.

    Returns:
        The absolute paths. The second file is named like the first, with -2 added, and so on.

    Raises:
        SetupError: the job made no file.
    """
    made: list[Mapping[str, Any]] = []
    for media_list in MEDIA_LISTS:
        made += result.get(media_list) or []
    if not made:
        raise SetupError(
            "the job made no file: its workflow needs a node that saves something, such as "
            "SaveImage"
        )
    written = []
    for number, media in enumerate(made, 1):
        ending = PurePath(media["filename"]).suffix
        first = output or paths.OUTPUT / f"{name}-{result['seed']}{ending}"
        path = _numbered(first, number, ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(media))
        written.append(path.absolute())
    return written


def _numbered(first: Path, number: int, ending: str) -> Path:
    """The path of a job's file, by the path of the first one."""
    if number > 1:
        return first.with_name(f"{first.stem}-{number}{ending}")
    if _is_same_format(first.suffix, ending):
        return first
    return first.with_name(first.name + ending)


def _is_same_format(suffix: str, ending: str) -> bool:
    """Whether two endings mean the same format, such as .jpg and .jpeg."""
    suffix, ending = suffix.lower(), ending.lower()
    return suffix == ending or (suffix in FORMATS and FORMATS[suffix] == FORMATS.get(ending))


def _content(media: Mapping[str, Any]) -> bytes:
    if media["type"] == "base64":
        return base64.b64decode(media["data"])
    answer = requests.get(media["data"], timeout=TIMEOUT_S)
    answer.raise_for_status()
    return answer.content


def _finished(
    endpoint: LocalEndpoint, job_input: Mapping[str, Any], step: Step, log: Path
) -> dict[str, Any]:
    """Run a job to its end and return its status."""
    workers = endpoint.workers
    with requests.Session() as session:
        session.trust_env = False  # requests to this machine must not use a proxy
        request = {"input": job_input}
        answer = _json(session.post(f"{endpoint.url}/run", json=request, timeout=TIMEOUT_S))
        status_url = f"{endpoint.url}/status/{answer['id']}"
        while answer["status"] in ("IN_QUEUE", "IN_PROGRESS"):
            if any(worker.process.poll() is not None for worker in workers):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                last_lines = "\n".join(lines[-LOG_LINES:])
                raise SetupError(
                    f"the worker ended before the job did. Its last lines ({log}):\n{last_lines}"
                )
            time.sleep(POLL_S)
            step.progress(answer["status"])
            answer = _json(session.get(status_url, timeout=TIMEOUT_S))
    return answer


def _json(response: requests.Response) -> dict[str, Any]:
    response.raise_for_status()
    answer = response.json()
    assert isinstance(answer, dict)
    return answer
