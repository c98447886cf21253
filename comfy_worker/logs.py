"""One log line an event, with a stable ``action`` and the job it belongs to.

``job_id`` and ``prompt_id`` are bound by context, so that no call has to carry them. Prompts and pictures are
logged at debug level at most; keys and tokens never, whoever wrote them into a line.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["bound", "conceal", "configure", "without_secrets"]

# A shorter one would be found in ordinary words.
MIN_SECRET = 8
MAX_SECRETS = 500
HIDDEN = "[hidden]"

_secrets: dict[str, None] = {}
_lock = threading.Lock()

_bound: ContextVar[dict[str, str]] = ContextVar("comfy_worker_log", default={})  # noqa: B039 - never mutated


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Add values, such as ``job_id``, to every log line of a block."""
    token = _bound.set({**_bound.get(), **values})
    try:
        yield
    finally:
        _bound.reset(token)


def conceal(*secrets: str) -> None:
    """Keep keys and tokens out of every log line and error from now on, the newest few hundred."""
    with _lock:
        for secret in secrets:
            if len(secret) >= MIN_SECRET:
                _secrets.pop(secret, None)
                _secrets[secret] = None
        for old in list(_secrets)[:-MAX_SECRETS]:
            del _secrets[old]


def without_secrets(text: str) -> str:
    """The text, with what is concealed blotted out."""
    with _lock:
        found = [secret for secret in _secrets if secret in text]
    for secret in found:
        text = text.replace(secret, HIDDEN)
    return text


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = dict(_bound.get())
        action = getattr(record, "action", None)
        if action:
            fields = {"action": action, **fields}
        line = " ".join([super().format(record), *(f"{key}={value}" for key, value in fields.items())])
        return without_secrets(line)


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
