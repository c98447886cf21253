"""Runs one template once, small, before the worker takes its first job.

Its models are loaded then, so that the first client does not wait for that. A warm-up that fails is
logged; the worker takes jobs all the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import WorkerError
from comfy_worker.planning.templates import Templates
from comfy_worker.read_ahead import ReadAhead
from comfy_worker.runner import JobRunner
from comfy_worker.startup import start_times

__all__ = ["WarmUp"]

log = logging.getLogger(__name__)

# The values of the small run, for parameters that the template has.
SMALL = {"width": 256, "height": 256, "steps": 1, "length": 1, "batch_size": 1}
# A grey picture of 256x256 pixels, for templates that need one.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAQAAAAEACAAAAAB5Gfe6AAABN0lEQVR42u3QAQEAAAjDoEdfdIMIEVjPTYAAAQIECBAg"
    "QIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIE"
    "CBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAA"
    "AQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAg"
    "QIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIECBAgQIAAAQIE"
    "CBAgQIAAAQIECKgD+XwHgaZcO5EAAAAASUVORK5CYII="
)
STAND_INS: dict[str, Any] = {"image": PICTURE, "mask": PICTURE, "prompt": "warm-up"}
JOB_ID = "warm-up"
LOOK_S = 2.0


class WarmUp:
    """The warm-up of a worker.

    Args:
        name: the template.
        templates: all of them.
        runner: runs the job.
        reading: reads the template's models ahead; None: nothing is read.
    """

    def __init__(
        self, name: str, templates: Templates, runner: JobRunner, reading: ReadAhead | None
    ) -> None:
        self._name = name
        self._templates = templates
        self._runner = runner
        self._reading = reading

    def run(self) -> bool:
        """Run the template; returns whether that succeeded. Never raises."""
        start_times.say(f"warming up with {self._name}")
        ended = threading.Event()
        reporting = threading.Thread(target=self._report, args=[ended], daemon=True)
        reporting.start()
        try:
            problem = self._problem()
        finally:
            ended.set()
        if problem:
            log.warning(
                "the warm-up with %s failed: %s",
                self._name,
                problem,
                extra={"action": "warm_up.failed"},
            )
        else:
            log.info("warmed up with %s", self._name, extra={"action": "warm_up.done"})
        start_times.mark("warm-up ended")
        return not problem

    def _problem(self) -> str:
        """Run the template, and say why that failed; empty if it succeeded."""
        try:
            required = self._templates.load(self._name).params.required
        except WorkerError as error:
            return f"{error.code}: {error}"
        unknown = [key for key in required if key not in STAND_INS]
        if unknown:
            return f"it needs {' and '.join(unknown)}, which only a client can send"
        job_input = {
            "workflow": self._name,
            "response": "images",
            "output": {"delivery": "base64"},
            **{key: STAND_INS[key] for key in required},
        }
        checked = self._run({**job_input, "validate_only": True})
        if problem := _error_of(checked):
            return problem
        return _error_of(self._run({**job_input, **_small_values(checked["parameters"])}))

    def _run(self, job_input: dict[str, Any]) -> Any:
        envelope = {"id": JOB_ID, "input": job_input}
        return self._runner.run(envelope, threading.Event(), self._on_update)

    def _on_update(self, update: dict[str, Any]) -> None:
        if "message" in update:
            start_times.say(f"warming up with {self._name}: {update['message']}")

    def _report(self, ended: threading.Event) -> None:
        """Log from time to time how much of the models is read."""
        reading = self._reading
        while reading is not None and not reading.wait(0) and not ended.wait(LOOK_S):
            done, total = reading.done_bytes / 1e9, reading.total_bytes / 1e9
            text = f"reading models: {done:.1f} of {total:.1f} GB"
            start_times.say(f"warming up with {self._name}: {text}")
            log.info("warm-up: %s", text, extra={"action": "warm_up.reading"})


def _small_values(parameters: Mapping[str, Any]) -> dict[str, int]:
    """Choose the values of the small run: those that the template has and that are larger."""
    values = {}
    for name, small in SMALL.items():
        current = parameters.get(name)
        if isinstance(current, int) and current > small:
            values[name] = small
    return values


def _error_of(answer: Any) -> str:
    """Return the error of an answer; empty if there is none."""
    if isinstance(answer, dict):
        return str(answer.get("error") or "")
    return ""
