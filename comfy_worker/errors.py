"""The tree of what can go wrong with a job.

Every error has a stable ``code``, one sentence that says what is wrong and what to do, and ``details``: a list
of JSON objects, one a finding. ``docs/errors.md`` documents each code, and a test holds the two together.

    WorkerError
    ├── InputError                what was asked cannot be done; nothing was queued
    │   ├── InvalidInput          INVALID_INPUT          a key of the wrong type, or an input that is no object
    │   ├── UnknownKey            UNKNOWN_KEY            a key of no known request
    │   ├── UnknownWorkflow       UNKNOWN_WORKFLOW       no template of that name
    │   ├── InvalidWorkflow       INVALID_WORKFLOW       a custom graph that is no workflow
    │   ├── InvalidValue          INVALID_VALUE          a value out of range, off the step, or not in the list
    │   ├── NoPlace               NO_PLACE               a parameter that this graph has no place for
    │   ├── Ambiguous             AMBIGUOUS              several places or files fit, and they do not mean the same
    │   ├── ModelNotFound         MODEL_NOT_FOUND        a model file that this machine lacks
    │   ├── ModelNotFetched       MODEL_NOT_FETCHED      a model given by URL that cannot be had, or may not be
    │   ├── ModelMismatch         MODEL_MISMATCH         a LoRA or ControlNet of another family than the checkpoint
    │   ├── NodeNotInstalled      NODE_NOT_INSTALLED     a node class, or its pack, that this ComfyUI lacks
    │   └── InvalidMedia          INVALID_MEDIA          a file that cannot be had or read
    ├── WorkflowRefused           WORKFLOW_REFUSED       ComfyUI's own validation refused the graph
    ├── ExecutionFailed           EXECUTION_FAILED       a node raised
    ├── OutOfMemory               OUT_OF_MEMORY          the GPU's or the host's memory did not suffice
    ├── DiskFull                  DISK_FULL              the worker's disk has no room for the job
    ├── GpuFault                  GPU_FAULT              an error after which the GPU works no more for ComfyUI
    ├── ComfyUIUnavailable        COMFYUI_UNAVAILABLE    ComfyUI did not start, died, or does not answer
    ├── NoOutput                  NO_OUTPUT              the workflow ended well and left nothing to return
    ├── DeliveryFailed            DELIVERY_FAILED        the storage did not take the files
    ├── ResultTooLarge            RESULT_TOO_LARGE       more than RunPod takes, and nowhere else to go
    ├── JobCancelled              JOB_CANCELLED          RunPod cancelled the job
    ├── JobTimedOut               JOB_TIMED_OUT          the job's time was over before it was done
    ├── InvalidSettings           INVALID_SETTINGS       environment variables that make no sense; raised at start
    └── InternalError             INTERNAL_ERROR         a fault of the worker's own
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "Ambiguous",
    "ComfyUIUnavailable",
    "DeliveryFailed",
    "DiskFull",
    "ExecutionFailed",
    "GpuFault",
    "InputError",
    "InternalError",
    "InvalidInput",
    "InvalidMedia",
    "InvalidSettings",
    "InvalidValue",
    "InvalidWorkflow",
    "JobCancelled",
    "JobTimedOut",
    "ModelMismatch",
    "ModelNotFetched",
    "ModelNotFound",
    "NoOutput",
    "NoPlace",
    "NodeNotInstalled",
    "OutOfMemory",
    "ResultTooLarge",
    "UnknownKey",
    "UnknownWorkflow",
    "WorkerError",
    "WorkflowRefused",
    "brief",
    "error_result",
]


def brief(value: object, length: int = 60) -> str:
    """A client's value as an error shows it: of a long one, its beginning."""
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}..."


class WorkerError(Exception):
    """A job cannot be done, for a reason that its client should read.

    Args:
        sentence: what is wrong and what to do, one sentence without the code.
        details: one JSON object a finding.

    Attributes:
        log_text: what the log may show above debug level: the code alone where the sentence may hold a
            client's words.
    """

    code: ClassVar[str] = ""
    holds_client_text: ClassVar[bool] = False

    def __init__(self, sentence: str, details: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.details = list(details)
        self.log_text = self.code if self.holds_client_text else f"{self.code}: {sentence}"

    def to_result(self) -> dict[str, Any]:
        """The error as a job's result: ``{"error": "CODE: sentence", "code", "message", "details"}``.

        ``code`` and ``message`` repeat ``error`` because some clients only see a job's ``output``, into which
        RunPod's SDK puts every key but ``error``.
        """
        return error_result(self.code, self.sentence, self.details)


def error_result(code: str, message: str, details: list[Any]) -> dict[str, Any]:
    """The form in which every error reaches a client."""
    return {"error": f"{code}: {message}", "code": code, "message": message, "details": details}


class InputError(WorkerError):
    """What was asked cannot be done; nothing was queued."""

    holds_client_text = True


class InvalidInput(InputError):
    """A key holds a value of the wrong type, or the input is no object."""

    code = "INVALID_INPUT"


class UnknownKey(InputError):
    """A key that no known request has."""

    code = "UNKNOWN_KEY"


class UnknownWorkflow(InputError):
    """There is no template of that name."""

    code = "UNKNOWN_WORKFLOW"


class InvalidWorkflow(InputError):
    """A custom graph that is no workflow."""

    code = "INVALID_WORKFLOW"


class InvalidValue(InputError):
    """A value is out of its range, off its step, or not in its list."""

    code = "INVALID_VALUE"


class NoPlace(InputError):
    """The graph has no place for a parameter."""

    code = "NO_PLACE"


class Ambiguous(InputError):
    """Several places or files fit, and they do not mean the same."""

    code = "AMBIGUOUS"


class ModelNotFound(InputError):
    """A model file that this machine lacks."""

    code = "MODEL_NOT_FOUND"


class ModelNotFetched(InputError):
    """A model given by URL that cannot be had, or may not be."""

    code = "MODEL_NOT_FETCHED"


class ModelMismatch(InputError):
    """A LoRA or ControlNet of another model family than the checkpoint."""

    code = "MODEL_MISMATCH"


class NodeNotInstalled(InputError):
    """A node class, or the pack that brings it, that this ComfyUI lacks."""

    code = "NODE_NOT_INSTALLED"


class InvalidMedia(InputError):
    """A picture, video or sound that cannot be had or read."""

    code = "INVALID_MEDIA"


class WorkflowRefused(WorkerError):
    """ComfyUI's own validation refused the graph, or the graph had made ComfyUI end before."""

    code = "WORKFLOW_REFUSED"
    holds_client_text = True


class ExecutionFailed(WorkerError):
    """A node raised while the workflow ran."""

    code = "EXECUTION_FAILED"
    holds_client_text = True


class OutOfMemory(WorkerError):
    """The GPU's or the host's memory did not suffice."""

    code = "OUT_OF_MEMORY"


class DiskFull(WorkerError):
    """The worker's disk has no room for the job."""

    code = "DISK_FULL"


class GpuFault(WorkerError):
    """An error after which the GPU works no more for this ComfyUI."""

    code = "GPU_FAULT"


class ComfyUIUnavailable(WorkerError):
    """ComfyUI did not start, died, or does not answer.

    Attributes:
        try_again: whether another ComfyUI may do the job: no node of it has run, and this one was up.
    """

    code = "COMFYUI_UNAVAILABLE"
    try_again: bool = True


class NoOutput(WorkerError):
    """The workflow ended well and left nothing to return."""

    code = "NO_OUTPUT"


class DeliveryFailed(WorkerError):
    """The storage did not take the files."""

    code = "DELIVERY_FAILED"


class ResultTooLarge(WorkerError):
    """The result is larger than RunPod takes, and there is nowhere else for it to go."""

    code = "RESULT_TOO_LARGE"


class JobCancelled(WorkerError):
    """RunPod cancelled the job."""

    code = "JOB_CANCELLED"


class JobTimedOut(WorkerError):
    """The job's time was over before it was done."""

    code = "JOB_TIMED_OUT"


class InvalidSettings(WorkerError):
    """Environment variables that make no sense; raised at start, all of them together."""

    code = "INVALID_SETTINGS"


class InternalError(WorkerError):
    """A fault of the worker's own; the log has its traceback."""

    code = "INTERNAL_ERROR"
