"""Configures the log and keeps secrets out of it.

Each event is one line, with a stable ``action`` and the job that it belongs to. ``job_id`` and
``prompt_id`` are bound by context, so that log calls need not pass them. Prompts and pictures are
logged at debug level at most; keys and tokens never, whichever code wrote the line.

A client's keys are redacted only in the lines and the answer of its own job. A client chooses the
text of its keys: redacted everywhere, it could hide words in the errors of other clients.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "ContextThreadPool",
    "add_secret",
    "bound",
    "configure",
    "job_secrets",
    "one_line",
    "redact",
    "redact_job",
    "secrets_in_context",
    "temporary_secrets",
]

# A shorter text occurs in ordinary words.
MIN_SECRET = 8
# A longer text is not a key; a request with one is refused.
MAX_SECRET = 512
HIDDEN = "[hidden]"
INDENT = "    "

# Characters that move a terminal's cursor or reverse its text. Line breaks are handled before.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
# The worker's own secrets, redacted for everybody, some for ever and others for a while.
_own: Counter[str] = Counter()
# The secrets of all running jobs, for the lines of ComfyUI that belong to no job.
_of_jobs: Counter[str] = Counter()

# Never mutated.
_bound: ContextVar[dict[str, str]] = ContextVar("comfy_worker_log", default={})  # noqa: B039
_in_context: ContextVar[tuple[str, ...]] = ContextVar("comfy_worker_secrets", default=())


class ContextThreadPool(ThreadPoolExecutor):
    """A thread pool whose threads keep the log context of the code that submits work."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread, with ``job_id`` and the job's secrets bound there too."""
        context = contextvars.copy_context()

        def run() -> T:
            return context.run(work, *args, **kwargs)

        return super().submit(run)


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Add values, such as ``job_id``, to every log line of a block."""
    token = _bound.set({**_bound.get(), **values})
    try:
        yield
    finally:
        _bound.reset(token)


def add_secret(*secrets: str) -> None:
    """Redact keys and tokens of the worker in every log line and error from now on."""
    with _lock:
        for secret in _long_enough(secrets):
            _own[secret] = max(_own[secret], 1)


@contextmanager
def temporary_secrets(*secrets: str) -> Iterator[None]:
    """Redact names that the worker made up, such as its folders, until the block ends.

    For the job of this block they stay redacted longer, since its error is written after the block.
    """
    _in_context.set((*_in_context.get(), *secrets))
    with _counted(_own, _long_enough(secrets)):
        yield


@contextmanager
def job_secrets(*secrets: str) -> Iterator[None]:
    """Redact a client's keys in the log lines and errors of a block, which is its job."""
    keys = _long_enough(secrets)
    token = _in_context.set((*_in_context.get(), *keys))
    try:
        with _counted(_of_jobs, keys):
            yield
    finally:
        _in_context.reset(token)


def secrets_in_context() -> tuple[str, ...]:
    """Return the keys of the job that this thread works for."""
    return _in_context.get()


def redact(text: str) -> str:
    """Redact the worker's secrets, and those of the job that this thread works for."""
    return redact_job(text, _in_context.get())


def redact_job(text: str, secrets: Iterable[str] | None) -> str:
    """Redact the worker's secrets and those of jobs.

    Args:
        text: a log line, or a part of an answer.
        secrets: the secrets of the job that the text belongs to; None for those of all jobs.
    """
    with _lock:
        of_job = _of_jobs if secrets is None else secrets
        hidden = [*_own, *of_job]
    # The longest first: a secret may be the beginning of another.
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def one_line(text: str) -> str:
    """Indent all lines except the first, so that no part of a text looks like a new log line."""
    lines = text.splitlines() or [""]
    return f"\n{INDENT}".join(CONTROL.sub(_escaped, line) for line in lines)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _long_enough(secrets: Iterable[str]) -> list[str]:
    return [secret for secret in secrets if MIN_SECRET <= len(secret) <= MAX_SECRET]


@contextmanager
def _counted(counter: Counter[str], secrets: list[str]) -> Iterator[None]:
    with _lock:
        counter.update(secrets)
    try:
        yield
    finally:
        with _lock:
            counter.subtract(secrets)
            for secret in secrets:
                if counter[secret] <= 0:
                    del counter[secret]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The values beside the sentence: action, fields of the event, and what is bound by context."""
    fields: dict[str, Any] = {}
    action = getattr(record, "action", None)
    if action:
        fields["action"] = action
    return {**fields, **getattr(record, "fields", {}), **_bound.get()}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        pairs = [f"{key}={value}" for key, value in _fields(record).items()]
        return one_line(redact(" ".join([super().format(record), *pairs])))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        shown = {}
        for key, value in line.items():
            shown[key] = redact(value) if isinstance(value, str) else value
        # ASCII only: a lone surrogate in a client's text cannot be written otherwise.
        return json.dumps(shown, default=str)


def configure(level: str, style: str = "text") -> None:
    """Send the worker's log to stderr.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        style: ``text``, or ``json`` for one JSON object a line.
    """
    handler = logging.StreamHandler()
    if style == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("comfy_worker")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)
    # Libraries warn through the root logger; their lines hold URLs and servers' answers.
    logging.getLogger().handlers = [handler]
    # It warns about classes that are not installed, under names that only the conversion uses.
    logging.getLogger("comfy_cli").setLevel("ERROR")
