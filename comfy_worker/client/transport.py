"""Sends requests to an endpoint, and repeats those that a busy or broken network has spoiled.

Only the standard library is used, so a client works before anything is installed.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from comfy_common.pinned_http import (
    InvalidURL,
    PinnedClient,
    RequestRefused,
    UnknownHost,
    UnsupportedProxy,
    UnsupportedScheme,
)
from comfy_worker.client.errors import (
    BadTarget,
    EndpointUnreachable,
    JobUnknown,
    RequestRejected,
    Stopped,
    Unauthorized,
)

__all__ = ["PATIENCE_S", "Transport", "is_loopback"]

# How long an endpoint that has answered before may be unreachable.
PATIENCE_S = 300.0
# A wrong URL should be noticed soon.
FIRST_PATIENCE_S = 10.0
ANSWER_S = 120.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0
LONGEST_RETRY_AFTER_S = 300.0
# The endpoint answers, and asks for patience.
BUSY = (408, 425, 429)
LONGEST_ERROR = 500


class _TryAgain(Exception):
    """This attempt failed, another one may succeed."""

    def __init__(self, reason: str, retry_after_s: float = 0.0, *, is_busy: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_busy = is_busy


@dataclass
class Transport:
    """Sends requests to one endpoint; may be shared by threads.

    Args:
        base_url: such as `https://api.runpod.ai/v2/ENDPOINT_ID`.
        api_key: sent as `Authorization: Bearer KEY`; empty for none.
        patience_s: how long to repeat a request to an endpoint that has answered before. Answers
            that ask to wait (HTTP 429) do not count.
        stop: set by another thread to end all requests.
        notify: gets a sentence when a request must wait before it is sent again.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    patience_s: float = PATIENCE_S
    stop: threading.Event = field(default_factory=threading.Event)
    notify: Callable[[str], None] = lambda _line: None
    has_answered: bool = False

    def call(
        self,
        method: str,
        route: str,
        body: Mapping[str, Any] | None = None,
        *,
        patience_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Send a request until it is answered.

        Args:
            method: GET or POST.
            route: such as `status/ID`.
            body: sent as JSON.
            patience_s: in place of the transport's own.
            stop: in place of the transport's own.

        Returns:
            The answer, a JSON object.

        Raises:
            RequestRejected: the endpoint refuses the request.
            EndpointUnreachable: the patience is over.
            BadTarget: the URL cannot be used.
            Stopped: `stop` is set.
        """
        stop = stop or self.stop
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        failing_since: float | None = None
        attempt = 0
        while True:
            if stop.is_set():
                raise Stopped("stopped")
            try:
                answer = self._attempt(method, route, data, stop)
            except _TryAgain as error:
                if stop.is_set():
                    raise Stopped("stopped") from None
                if error.is_busy:
                    failing_since = None
                else:
                    failing_since = failing_since or time.monotonic()
                    self._check_patience(failing_since, patience_s, error)
                pause_s = _pause_s(attempt, error.retry_after_s)
                self.notify(f"{error}; trying again in {pause_s:.1f} s")
                attempt += 1
                stop.wait(pause_s)
                continue
            self.has_answered = True
            return answer

    def _check_patience(
        self, failing_since: float, patience_s: float | None, error: _TryAgain
    ) -> None:
        if patience_s is None:
            patience_s = self.patience_s
        if not self.has_answered:
            patience_s = min(patience_s, FIRST_PATIENCE_S)
        if time.monotonic() - failing_since >= patience_s:
            raise EndpointUnreachable(f"{self.base_url}: {error}") from error.__cause__

    def _attempt(
        self, method: str, route: str, data: bytes | None, stop: threading.Event
    ) -> dict[str, Any]:
        over_at = time.monotonic() + ANSWER_S
        client = PinnedClient(
            allow_private=True,
            use_proxies=not is_loopback(self.base_url),
            is_over=lambda: stop.is_set() or time.monotonic() >= over_at,
        )
        headers = {"Accept": "application/json"}
        if data is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        url = f"{self.base_url.rstrip('/')}/{route}"
        try:
            with client.open(
                url, lambda _target: headers, method=method, follow=False, body=data
            ) as answer:
                status = answer.response.status
                retry_after = answer.response.headers.get("Retry-After", "")
                content = answer.response.read()
        except RequestRefused as error:
            raise _refusal(error, self.base_url) from error
        except ssl.SSLCertVerificationError as error:
            raise BadTarget(f"{self.base_url}: its certificate is not valid: {error}") from error
        except (OSError, HTTPException) as error:
            raise _TryAgain(_reason(error)) from error
        return self._read(status, retry_after, content)

    def _read(self, status: int, retry_after: str, content: bytes) -> dict[str, Any]:
        value = _json_object(content)
        if 200 <= status < 300:
            if value is None:
                raise _TryAgain("the endpoint answered with something that is not JSON")
            return value
        text = _error_text(value, content)
        if status in BUSY or status >= 500:
            self.has_answered = True
            is_busy = status in BUSY
            reason = f"the endpoint answered HTTP {status}{text}"
            raise _TryAgain(reason, _seconds(retry_after), is_busy=is_busy)
        if status in (401, 403):
            raise Unauthorized(f"the endpoint rejects the API key (HTTP {status}){text}", status)
        if status == 404:
            raise JobUnknown(f"the endpoint does not know this (HTTP 404){text}", status)
        raise RequestRejected(f"the endpoint rejects the request (HTTP {status}){text}", status)


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine, so that no proxy can reach it."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pause_s(attempt: int, retry_after_s: float) -> float:
    """The pause before the next attempt. It varies, so that many clients do not come together."""
    longest = min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)
    spread: float = random.uniform(0.7, 1.0)  # noqa: S311 (nothing secret)
    return max(longest * spread, min(retry_after_s, LONGEST_RETRY_AFTER_S))


def _seconds(retry_after: str) -> float:
    """The seconds that a `Retry-After` header asks for: a number, or a date."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _error_text(value: Mapping[str, Any] | None, content: bytes) -> str:
    """What the body of an error says, as the rest of a sentence; empty for a web page."""
    if value is not None:
        text = value.get("error") or value.get("detail") or value.get("message") or ""
    else:
        text = content[:LONGEST_ERROR].decode(errors="replace").strip()
        if text.startswith("<"):
            text = ""
    words = " ".join(str(text).split())[:LONGEST_ERROR]
    return f": {words}" if words else ""


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "the endpoint did not answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection broke ({text})"


def _refusal(error: RequestRefused, url: str) -> Exception:
    if isinstance(error, UnknownHost):
        return _TryAgain(f"there is no host {error.host}")
    if isinstance(error, InvalidURL | UnsupportedScheme):
        return BadTarget(f"{url} is not a URL that begins with http:// or https://")
    if isinstance(error, UnsupportedProxy):
        return BadTarget("the environment names a SOCKS proxy, which Python does not support")
    return BadTarget(f"{url} cannot be used ({type(error).__name__})")
