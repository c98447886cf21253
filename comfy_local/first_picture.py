"""One job through the real handler and the real ComfyUI, its picture on the disk: the proof that all is in place.

Runs inside the virtual environment.  It is a client of the local endpoint, and knows of the worker only what any
client knows: the job's input and its result.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import requests

from comfy_common import paths
from comfy_common.errors import SetupError
from comfy_common.text import size
from comfy_local.endpoint import LocalEndpoint
from comfy_setup.console import Console, Step

# What a placeholder is asked for: its pictures are noise, so they may as well be quick.
SMALL = {"width": 64, "height": 64, "steps": 2}
# The format of pictures by the ending of a file.
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
POLL_S = 0.2
TIMEOUT_S = 30.0
LOG_LINES = 12
TEMPLATE_NAME = re.compile(r"[\w.-]+")  # other text is a graph, or a picture that holds one


def make_picture(
    console: Console, environ: Mapping[str, str], asked: Mapping[str, Any], output: Path | None, small: bool
) -> int:
    """Run one job and write what it made.

    Args:
        console: where it is told; the files' names go to standard output.
        environ: the worker's environment.
        asked: the job's input, with its `workflow`.
        output: the file for the (first) picture, None for one under `output/`.
        small: ask for 64x64 and 2 steps where the input says nothing else.

    Returns:
        The exit code: 0, or 1 if the job failed, which is told in full.

    Raises:
        SetupError: the worker does not start.
    """
    asked = with_format(asked, output)
    job_input = {**(SMALL if small else {}), **asked}
    if job_input != asked:
        console.say("So this asks for 64x64 and 2 steps only; --input '{\"width\": 512, ...}' asks for more.")
    workflow = asked["workflow"]
    name = workflow if isinstance(workflow, str) and TEMPLATE_NAME.fullmatch(workflow) else "custom"
    log = paths.CACHE / "worker.log"
    log.unlink(missing_ok=True)
    with (
        LocalEndpoint(environ=environ, log_path=log) as endpoint,
        console.step(f"Starting ComfyUI and the worker, running {name}") as step,
    ):
        answer = _finished(endpoint, job_input, step, log)
    if answer["status"] != "COMPLETED":
        console.say(f"The job ended as {answer['status']}.")
        tell_failure(console, answer)
        return 1
    written = write_files(answer["output"], output, name)
    for path in written:
        print(path, flush=True)
    if output is not None and written[0].suffix != output.suffix:
        console.say(f"{output.name} would not say what the job made: it is in {written[0].name}.")
    tell_result(console, answer["output"])
    return 0


def with_format(asked: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Let a job write pictures in the format that a file's name says.

    Args:
        asked: the job's input.
        output: where the first picture goes, None where nobody said.

    Returns:
        The input, with `output.format` where the name says one.

    Raises:
        SetupError: the input asks for another format than the name.
    """
    wanted = FORMATS.get(output.suffix.lower()) if output is not None else None
    options = asked.get("output") or {}
    if output is None or wanted is None or not isinstance(options, dict):
        return dict(asked)
    chosen = options.get("format") or wanted
    if chosen != wanted:
        raise SetupError(f"--output {output.name} and the input's output.format {chosen} differ: leave one away")
    return {**asked, "output": {**options, "format": wanted}}


def tell_failure(console: Console, answer: Mapping[str, Any]) -> None:
    """Say why a job failed.

    Args:
        console: where it is told.
        answer: the job's status; `error` is its "CODE: sentence", `output.details` what there is to know besides.
    """
    console.say(f"Error: {answer.get('error', 'it gave no reason')}")
    given = answer.get("output")
    details = given.get("details", []) if isinstance(given, dict) else []
    for detail in details:
        for key, value in detail.items() if isinstance(detail, dict) else [("detail", detail)]:
            for line in value if isinstance(value, list) else [value]:
                console.say(f"  {key}: {line}")


def tell_result(console: Console, result: Mapping[str, Any]) -> None:
    """Say what a job made, with which seed, and where its time went.

    Args:
        console: where it is told.
        result: the job's output.
    """
    for image in result["images"]:
        kind = image["mime_type"].rpartition("/")[2].upper()
        console.say(f"{kind}, {image['width']}x{image['height']}, {size(image['bytes'])}, seed {result['seed']}")
    stages = result["timings"]["stages"].items()
    console.say(f"Time by stage: {', '.join(f'{stage} {ms} ms' for stage, ms in stages)}")
    for warning in result["warnings"]:
        console.say(f"Warning: {warning}")


def write_files(result: Mapping[str, Any], output: Path | None, name: str) -> list[Path]:
    """Write the files of a result.

    Args:
        result: the job's output, files as base64 or as links.
        output: where the first one goes, with the file's own ending behind it where that means another format;
            None for `output/<name>-<seed>` and the file's own ending.
        name: of the workflow.

    Returns:
        The files, absolute; the second is called like the first with -2 behind its name, and so on.

    Raises:
        SetupError: the job made no file.
    """
    made = [media for kind in ("images", "videos", "audio", "files") for media in result.get(kind) or []]
    if not made:
        raise SetupError("the job made no file: its workflow needs a node that saves something, as SaveImage does")
    written = []
    for number, media in enumerate(made, 1):
        ending = PurePath(media["filename"]).suffix
        first = output or paths.OUTPUT / f"{name}-{result['seed']}{ending}"
        path = first.with_name(f"{first.stem}-{number}{ending}")
        if number == 1:
            path = first if _is_same_format(first.suffix, ending) else first.with_name(first.name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(media))
        written.append(path.absolute())
    return written


def _is_same_format(suffix: str, ending: str) -> bool:
    """Whether two endings of files mean one format, as .jpg and .jpeg do."""
    suffix, ending = suffix.lower(), ending.lower()
    return suffix == ending or (suffix in FORMATS and FORMATS[suffix] == FORMATS.get(ending))


def _content(media: Mapping[str, Any]) -> bytes:
    if media["type"] == "base64":
        return base64.b64decode(media["data"])
    answer = requests.get(media["data"], timeout=TIMEOUT_S)
    answer.raise_for_status()
    return answer.content


def _finished(endpoint: LocalEndpoint, job_input: Mapping[str, Any], step: Step, log: Path) -> dict[str, Any]:
    """Run a job to its end and give its status."""
    workers = endpoint.workers
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business on this machine
        answer = _json(session.post(f"{endpoint.url}/run", json={"input": job_input}, timeout=TIMEOUT_S))
        while answer["status"] in ("IN_QUEUE", "IN_PROGRESS"):
            if any(worker.process.poll() is not None for worker in workers):
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
                raise SetupError(
                    f"the worker ended before the job did. Its last lines ({log}):\n" + "\n".join(last)
                )
            time.sleep(POLL_S)
            step.progress(answer["status"])
            answer = _json(session.get(f"{endpoint.url}/status/{answer['id']}", timeout=TIMEOUT_S))
    return answer


def _json(response: requests.Response) -> dict[str, Any]:
    response.raise_for_status()
    answer = response.json()
    assert isinstance(answer, dict)
    return answer
