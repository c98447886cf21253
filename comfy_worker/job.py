"""A typed job, read once from RunPod's envelope ``{"id", "input", "policy", "s3Config"}``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.deadline import Deadline, StageTimer
from comfy_worker.errors import InvalidValue
from comfy_worker.request.dialects import KNOWN_WORDS, OPTIONS_CALLS, TranslatedInput, translate
from comfy_worker.request.embedded_workflow import with_embedded_workflow
from comfy_worker.request.graph_wrappers import secrets_within
from comfy_worker.request.s3_config import parse_s3_config
from comfy_worker.request.schema import JobInput
from comfy_worker.response_formats import ResponseFormat
from comfy_worker.s3_location import Bucket
from comfy_worker.settings import Settings

__all__ = ["Job", "secrets_in", "secrets_of", "time_limit_s"]

# An error needs time to arrive before RunPod ends the job: this much, but at most this share of the
# job's time.
MARGIN_S = 10.0
MARGIN_SHARE = 0.1
# RunPod allows seven days.
LONGEST_MS = 1e12


@dataclass(eq=False)
class Job:
    """A job, typed and checked.

    Attributes:
        id: RunPod's id.
        input: the request in the keys of the schema; empty for a call about A1111's options.
        raw_input: ``job["input"]`` as it came; A1111's shape of an answer repeats parts of it.
        deadline: when the work must end.
        response: the shape of the answer.
        storage: the client's own storage for the results; None: the worker's.
        is_stream: whether the outputs of each node are sent as soon as they are finished.
        warnings: a sentence for each ignored part of another worker's request.
        client_words: by key of the schema, the client's own name for it. If the workflow has no
            input for such a key, that is a warning and not an error.
        extra_data: sent to ComfyUI with the prompt; holds the client's key for paid nodes.
        options_call: ``getModels``, ``getOptions`` or ``setOptions`` of A1111's API; None: a job
            for the GPU.
        timer: measures the stages of the job.
    """

    id: str
    input: JobInput = field(default_factory=JobInput)
    raw_input: Any = None
    deadline: Deadline = field(default_factory=Deadline)
    response: ResponseFormat = "images"
    storage: Bucket | None = None
    is_stream: bool = False
    warnings: list[str] = field(default_factory=list)
    client_words: Mapping[str, str] = field(default_factory=dict)
    extra_data: Mapping[str, str] = field(default_factory=dict, repr=False)
    options_call: str | None = None

    def __post_init__(self) -> None:
        self.timer = StageTimer(self.deadline)

    @classmethod
    def parse(
        cls, envelope: Mapping[str, Any], settings: Settings, cancelled: threading.Event
    ) -> Job:
        """Read a job.

        Args:
            envelope: as RunPod hands it out.
            settings: the worker's.
            cancelled: set by another thread to end the job.

        Raises:
            InputError: the input, in any known dialect, or the ``s3Config`` is wrong.
        """
        deadline = Deadline(cancelled, time_limit_s(envelope, settings.job_timeout_s))
        translated = translate(envelope.get("input"), deadline.check)
        if translated.api_name in OPTIONS_CALLS:
            return cls(
                id=str(envelope.get("id")),
                raw_input=translated.input,
                deadline=deadline,
                options_call=translated.api_name,
            )
        request = JobInput.read(
            translated.input, translated.client_words, KNOWN_WORDS, deadline.check
        )
        request = with_embedded_workflow(request)
        _check_batch_size(request, translated, settings.max_batch_size)
        s3_config = envelope.get("s3Config") or None
        return cls(
            id=str(envelope.get("id")),
            input=request,
            raw_input=translated.raw_input,
            deadline=deadline,
            response=request.response or translated.response or settings.response_format,
            storage=None if s3_config is None else parse_s3_config(s3_config),
            is_stream=settings.streaming,
            warnings=translated.warnings,
            client_words=translated.client_words,
            extra_data=translated.extra_data,
        )


def time_limit_s(envelope: Mapping[str, Any], default_s: float) -> float:
    """Return how long a job may take, in seconds.

    That is its own ``executionTimeout`` less a margin, otherwise the default.
    """
    policy = envelope.get("policy")
    limit_ms = policy.get("executionTimeout") if isinstance(policy, Mapping) else None
    if isinstance(limit_ms, bool) or not isinstance(limit_ms, (int, float)):
        return default_s
    if not 0 < limit_ms <= LONGEST_MS:  # NaN is not between them either
        return default_s
    limit_s = limit_ms / 1000
    return limit_s - min(MARGIN_S, limit_s * MARGIN_SHARE)


def _check_batch_size(request: JobInput, translated: TranslatedInput, maximum: int) -> None:
    if request.batch_size is None or request.batch_size <= maximum:
        return
    name = translated.client_words.get("batch_size", "batch_size")
    raise InvalidValue(
        f"{name} must be at most {maximum}, not {request.batch_size}: the endpoint's setting "
        "MAX_BATCH_SIZE",
        [{"key": name, "value": request.batch_size, "maximum": maximum}],
    )


def secrets_in(envelope: Mapping[str, Any]) -> list[str]:
    """Find all keys that a job brings, also in an input that is wrapped or wrong; never raises."""
    return [*secrets_of(envelope), *secrets_within(envelope.get("input"))]


def secrets_of(envelope: Mapping[str, Any]) -> list[str]:
    """Find a job's keys for comfy.org and for its own storage, where they usually are."""
    job_input, storage = envelope.get("input"), envelope.get("s3Config")
    keys = []
    if isinstance(job_input, dict):
        keys.append(job_input.get("comfy_org_api_key"))
    if isinstance(storage, dict):
        keys.append(storage.get("accessSecret"))
    return [str(key) for key in keys if isinstance(key, (str, int))]
