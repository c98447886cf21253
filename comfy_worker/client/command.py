"""The command `submit`: sends one job, or the jobs of a list, and saves their files."""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.exit_codes import CANCELLED, FAILED, OK, UNREACHABLE
from comfy_common.job_options import job_input, with_format
from comfy_common.text import duration
from comfy_worker.client.batch import Batch, RowState, StateFile, as_report, state_path
from comfy_worker.client.endpoint import Endpoint, JobStatus
from comfy_worker.client.errors import ClientError, EndpointUnreachable
from comfy_worker.client.files import Folder, result_texts, save_files
from comfy_worker.client.job_list import Row, read_rows

__all__ = ["as_json", "check_submit", "show_status", "submit"]

MOST_AT_ONCE = 100


def check_submit(options: argparse.Namespace) -> None:
    """Find options that contradict each other.

    Raises:
        SetupError: one line for the user.
    """
    if options.endpoint and options.url:
        raise SetupError("--endpoint and --url name two endpoints: leave one out")
    if options.list and options.output:
        raise SetupError("--output names one file, but --list makes many: use --folder")
    if not 1 <= options.at_once <= MOST_AT_ONCE:
        raise SetupError(f"--at-once must be from 1 to {MOST_AT_ONCE}")


def submit(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command.

    Args:
        options: with those of :func:`comfy_common.job_options.add_submit_options`.
        environ: see :meth:`Endpoint.from_env`.

    Returns:
        The exit code.

    Raises:
        SetupError: an option or a file cannot be used.
        KeyboardInterrupt: after Ctrl-C, when the jobs are cancelled.
    """
    check_submit(options)
    values = job_input(options)
    console = Console(io.StringIO() if options.quiet else sys.stderr)
    try:
        endpoint = _endpoint(options, environ)
        if options.list:
            return _submit_list(console, endpoint, options, values)
        return _submit_one(console, endpoint, options, values)
    except ClientError as error:
        hint = ""
        if isinstance(error, EndpointUnreachable) and not (options.endpoint or options.url):
            hint = "; `serve` starts the local endpoint, and --endpoint names one of RunPod"
        Console(sys.stderr).say(f"Error: {error}{hint}")
        return UNREACHABLE


def _endpoint(options: argparse.Namespace, environ: Mapping[str, str]) -> Endpoint:
    if not options.url:
        return Endpoint.from_env(environ, options.endpoint)
    return Endpoint.at(options.url.rstrip("/"), environ.get("RUNPOD_API_KEY", "").strip())


def _submit_one(
    console: Console, endpoint: Endpoint, options: argparse.Namespace, values: dict[str, Any]
) -> int:
    output = Path(options.output) if options.output else None
    values = with_format(values, output)
    with console.step(f"Running a job at {endpoint.transport.base_url}") as step:
        endpoint.transport.notify = step.say
        job = endpoint.run(values)
        try:
            status = job.wait(lambda status: show_status(step, status))
        except KeyboardInterrupt:
            step.say("Cancelling the job")
            with suppress(ClientError):
                job.cancel()
            raise
    files: list[Path] = []
    if status.is_completed:
        files = save_files(status.output, options.folder, output)
    if options.json:
        Console(sys.stdout).say(as_json(status, files))
    else:
        for path in files:
            Console(sys.stdout).say(str(path))
        for text in result_texts(status.output):
            console.say(text)
    return _outcome(status)


def as_json(status: JobStatus, files: Sequence[Path]) -> str:
    """Describe the end of a job for a program, as one line of JSON.

    Args:
        status: of a job that has ended.
        files: where its files were saved. Their base64 is left out.
    """
    report = {
        "status": status.state,
        "id": status.job_id,
        "files": [str(path) for path in files],
        "error": status.error,
        "output": _without_data(status.output),
    }
    return json.dumps(report, ensure_ascii=False)


def _outcome(status: JobStatus) -> int:
    """Say how a job ended; returns the exit code."""
    console = Console(sys.stderr)
    if status.is_completed:
        for warning in _warnings(status.output):
            console.say(f"Warning: {warning}")
        return OK
    if status.state == "FAILED":
        console.say(f"Error: {status.error or 'the job failed and gave no reason'}")
        for detail in status.details:
            console.say(f"  {json.dumps(detail, ensure_ascii=False)}")
        return FAILED
    console.say(f"Error: the job ended as {status.state}")
    return CANCELLED


def show_status(step: Step, status: JobStatus) -> None:
    """Show a job's progress.

    Args:
        step: the step that waits for the job.
        status: the newest one.
    """
    progress = status.progress
    if progress is None:
        words = {"IN_QUEUE": "waiting in the queue", "IN_PROGRESS": "running"}
        step.progress(words.get(status.state, status.state))
        return
    note = progress.message or "running"
    if progress.eta_s is not None:
        note += f", about {duration(progress.eta_s)} left"
    step.progress(f"{progress.percent:.0f} %, {note}", progress.percent / 100)


@dataclass
class _ListProgress:
    """Shows how far a list is. Its methods may be called by any thread."""

    step: Step
    total: int
    folder: Path
    as_json: bool

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}
        self._done = 0
        self._failed = 0

    def update(self, row: Row, status: JobStatus) -> None:
        """Note the progress of a running row."""
        with self._lock:
            self._running[row.number] = status.progress.percent if status.progress else 0.0
            self._show()

    def end(self, row: Row, state: RowState) -> None:
        """Note the end of a row, and print its files."""
        with self._lock:
            self._running.pop(row.number, None)
            self._done += 1
            if state.state != "COMPLETED":
                self._failed += 1
                self.step.say(f"{row.source}: {state.state}: {state.error}")
            if self.as_json:
                report = as_report(row, state, self.folder)
                Console(sys.stdout).say(json.dumps(report, ensure_ascii=False))
            else:
                for name in state.files if state.state == "COMPLETED" else ():
                    Console(sys.stdout).say(str(self.folder / name))
            self._show()

    def _show(self) -> None:
        share = (self._done + sum(self._running.values()) / 100) / self.total
        note = f"{self._done} of {self.total} done, {len(self._running)} sent"
        if self._failed:
            note += f", {self._failed} failed"
        self.step.progress(note, share)


def _submit_list(
    console: Console, endpoint: Endpoint, options: argparse.Namespace, values: dict[str, Any]
) -> int:
    rows = read_rows(options.list, values)
    states = StateFile(state_path(options.folder, options.list))
    title = f"Running {len(rows)} jobs at {endpoint.transport.base_url}"
    with states.opened(), console.step(title) as step:
        endpoint.transport.notify = step.say
        progress = _ListProgress(step, len(rows), options.folder, options.json)
        batch = Batch(
            endpoint,
            Folder(options.folder),
            states,
            options.at_once,
            progress.update,
            progress.end,
        )
        counts = batch.run(rows)
    if counts["COMPLETED"] == len(rows):
        return OK
    ended = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    Console(sys.stderr).say(f"Error: not all jobs completed: {ended}. Call this again to retry")
    return FAILED


def _warnings(output: Any) -> list[str]:
    warnings = output.get("warnings") if isinstance(output, dict) else None
    return [str(text) for text in warnings] if isinstance(warnings, list) else []


def _without_data(value: Any) -> Any:
    """Leave out the base64 of files: they are on the disk."""
    if isinstance(value, list):
        return [_without_data(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    is_file = value.get("type") == "base64" and isinstance(value.get("data"), str)
    return {
        key: _without_data(entry) for key, entry in value.items() if not (is_file and key == "data")
    }
