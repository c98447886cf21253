"""One log line an event, with a stable ``action`` and the job it belongs to.

``job_id`` and ``prompt_id`` are bound by context, so that no call has to carry them. Prompts, pictures and tokens
are logged at debug level at most.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["bound", "configure"]

_bound: ContextVar[dict[str, str]] = ContextVar("comfy_worker_log", default={})  # noqa: B039 - never mutated


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Add values, such as ``job_id``, to every log line of a block."""
    token = _bound.set({**_bound.get(), **values})
    try:
        yield
    finally:
        _bound.reset(token)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = dict(_bound.get())
        action = getattr(record, "action", None)
        if action:
            fields = {"action": action, **fields}
        return " ".join([super().format(record), *(f"{key}={value}" for key, value in fields.items())])


def configure(level: str) -> None:
    """Send the worker's log to stderr.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("comfy_worker")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)
    # It warns of classes that are not installed, under names that only the conversion knows.
    logging.getLogger("comfy_cli").setLevel("ERROR")
