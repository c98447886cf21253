"""The tree of all errors that a job can have.

Every error has a stable ``code``, one sentence that says what is wrong and what to do, and
``details``: a list of JSON objects, one for each finding. ``docs/errors.md`` documents each code; a
test compares the two.

    WorkerError
    ├── InputError             the request cannot be done; nothing was queued
    │   ├── InvalidInput       INVALID_INPUT         a value of the wrong type, or no object
    │   ├── UnknownKey         UNKNOWN_KEY           a key of no known request
    │   ├── UnknownWorkflow    UNKNOWN_WORKFLOW      no template of that name
    │   ├── InvalidWorkflow    INVALID_WORKFLOW      a custom graph that is not a workflow
    │   ├── InvalidValue       INVALID_VALUE         out of range, off the step, not in the list
    │   ├── NoPlace            NO_PLACE              the graph has no input for a parameter
    │   ├── Ambiguous          AMBIGUOUS             several inputs or files fit
    │   ├── ModelNotFound      MODEL_NOT_FOUND       a model file that is not installed
    │   ├── ModelNotFetched    MODEL_NOT_FETCHED     a model's URL that fails, or is not allowed
    │   ├── ModelMismatch      MODEL_MISMATCH        a LoRA or ControlNet of another family
    │   ├── NodeNotInstalled   NODE_NOT_INSTALLED    a node class or pack that is not installed
    │   ├── ComfyUITooOld      COMFYUI_TOO_OLD       a template for a newer ComfyUI
    │   └── InvalidMedia       INVALID_MEDIA         a file that cannot be fetched or decoded
    ├── WorkflowRefused        WORKFLOW_REFUSED      ComfyUI's own validation refused the graph
    ├── ExecutionFailed        EXECUTION_FAILED      a node raised
    ├── OutOfMemory            OUT_OF_MEMORY         the GPU or the host ran out of memory
    ├── DiskFull               DISK_FULL             the worker's disk is full
    ├── GpuFault               GPU_FAULT             an error that the GPU cannot recover from
    ├── ComfyUIUnavailable     COMFYUI_UNAVAILABLE   ComfyUI did not start, died, or is silent
    ├── NoOutput               NO_OUTPUT             the workflow succeeded but saved nothing
    ├── DeliveryFailed         DELIVERY_FAILED       the storage refused the files
    ├── ResultTooLarge         RESULT_TOO_LARGE      larger than RunPod accepts, and no storage
    ├── JobCancelled           JOB_CANCELLED         RunPod cancelled the job
    ├── JobTimedOut            JOB_TIMED_OUT         the job did not finish in time
    ├── InvalidSettings        INVALID_SETTINGS      wrong environment variables; raised at start
    └── InternalError          INTERNAL_ERROR        a fault of the worker itself
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "Ambiguous",
    "ComfyUITooOld",
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
    """Shorten a client's value for an error: of a long value, only the beginning is shown."""
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}..."


class WorkerError(Exception):
    """A job failed, for a reason that its client should read.

    Args:
        sentence: what is wrong and what to do, one sentence without the code.
        details: a JSON object for each finding.

    Attributes:
        log_text: what the log may show above debug level: the code alone where the sentence may
            hold a client's words.
    """

    code: ClassVar[str] = ""
    holds_client_text: ClassVar[bool] = False

    def __init__(self, sentence: str, details: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.details = list(details)
        self.log_text = self.code if self.holds_client_text else f"{self.code}: {sentence}"

    def to_result(self) -> dict[str, Any]:
        """Return the error as a job's result.

        ``code`` and ``message`` repeat ``error`` because some clients only see a job's ``output``,
        into which RunPod's SDK puts every key but ``error``.
        """
        return error_result(self.code, self.sentence, self.details)


def error_result(code: str, message: str, details: list[Any]) -> dict[str, Any]:
    """Return an error in the format that every client gets."""
    return {"error": f"{code}: {message}", "code": code, "message": message, "details": details}


class InputError(WorkerError):
    """The request cannot be done; nothing was queued."""

    holds_client_text = True


class InvalidInput(InputError):
    """A key holds a value of the wrong type, or the input is not an object."""

    code = "INVALID_INPUT"


class UnknownKey(InputError):
    """A key that is part of no known request."""

    code = "UNKNOWN_KEY"


class UnknownWorkflow(InputError):
    """No template has that name."""

    code = "UNKNOWN_WORKFLOW"


class InvalidWorkflow(InputError):
    """A custom graph is not a workflow."""

    code = "INVALID_WORKFLOW"


class InvalidValue(InputError):
    """A value is out of its range, off its step, or not in its list."""

    code = "INVALID_VALUE"


class NoPlace(InputError):
    """The graph has no input for a parameter."""

    code = "NO_PLACE"


class Ambiguous(InputError):
    """Several inputs or files fit, and their meaning differs."""

    code = "AMBIGUOUS"


class ModelNotFound(InputError):
    """A model file is not installed."""

    code = "MODEL_NOT_FOUND"


class ModelNotFetched(InputError):
    """A model's URL cannot be downloaded, or is not allowed."""

    code = "MODEL_NOT_FETCHED"


class ModelMismatch(InputError):
    """A LoRA or ControlNet is made for another model family than the checkpoint's."""

    code = "MODEL_MISMATCH"


class NodeNotInstalled(InputError):
    """A node class, or the pack that defines it, is not installed."""

    code = "NODE_NOT_INSTALLED"


class ComfyUITooOld(InputError):
    """A template needs a newer ComfyUI than the installed one."""

    code = "COMFYUI_TOO_OLD"


class InvalidMedia(InputError):
    """An image, video or audio file cannot be fetched or decoded."""

    code = "INVALID_MEDIA"


class WorkflowRefused(WorkerError):
    """ComfyUI's own validation refused the graph, or the graph ended ComfyUI before."""

    code = "WORKFLOW_REFUSED"
    holds_client_text = True


class ExecutionFailed(WorkerError):
    """A node raised while the workflow ran."""

    code = "EXECUTION_FAILED"
    holds_client_text = True


class OutOfMemory(WorkerError):
    """The GPU or the host ran out of memory."""

    code = "OUT_OF_MEMORY"


class DiskFull(WorkerError):
    """The worker's disk is full."""

    code = "DISK_FULL"


class GpuFault(WorkerError):
    """The GPU reported an error that this ComfyUI cannot recover from."""

    code = "GPU_FAULT"


class ComfyUIUnavailable(WorkerError):
    """ComfyUI did not start, died, or does not answer.

    Attributes:
        try_again: whether another ComfyUI may do the job: no node of it has run, and this one was
            up.
    """

    code = "COMFYUI_UNAVAILABLE"
    try_again: bool = True


class NoOutput(WorkerError):
    """The workflow succeeded but saved nothing."""

    code = "NO_OUTPUT"


class DeliveryFailed(WorkerError):
    """The storage refused the files."""

    code = "DELIVERY_FAILED"


class ResultTooLarge(WorkerError):
    """The result is larger than RunPod accepts, and no storage is configured."""

    code = "RESULT_TOO_LARGE"


class JobCancelled(WorkerError):
    """RunPod cancelled the job."""

    code = "JOB_CANCELLED"


class JobTimedOut(WorkerError):
    """The job did not finish in time."""

    code = "JOB_TIMED_OUT"


class InvalidSettings(WorkerError):
    """Environment variables are wrong. Raised at start, for all of them together."""

    code = "INVALID_SETTINGS"


class InternalError(WorkerError):
    """A fault of the worker itself; the log has its traceback."""

    code = "INTERNAL_ERROR"
